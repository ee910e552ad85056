// How a checkpoint says that its Linears are quantized: `quantization_config` of config.json.
#ifndef QUIVER_ENGINE_MODEL_QUANTIZATION_CONFIG_H_
#define QUIVER_ENGINE_MODEL_QUANTIZATION_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model/json_file.h"

namespace quiver {

enum class WeightFormat : uint8_t {
  kFloat,  // F32, F16 or BF16
  kInt4,   // (q - zero point) * scale, q from 0 to 15, a zero point and a scale for each group of
           // inputs
  kFp8,    // E4M3 * scale, a scale for each block
};

// The layouts on disk of kInt4 (see linear_weight.cc).
enum class Int4Layout : uint8_t { kAwq, kGptq, kCompressedTensors };

// How one Linear is stored.
struct LinearScheme {
  WeightFormat format = WeightFormat::kFloat;
  // Whether it is stored in floats and becomes `format` as it is read.
  bool at_load = false;

  // kInt4. Inputs that share a scale; 0 for all of them.
  Int4Layout int4_layout = Int4Layout::kAwq;
  int64_t group_size = 0;
  // Of compressed-tensors; without them the zero point is 8. The others always store them.
  bool has_zero_points = false;
  // GPTQ's first checkpoint format stores zero points less one.
  bool zero_points_less_one = false;
  // Whether inputs belong to groups by a table, which must be there then.
  bool has_input_groups = false;

  // kFp8. Outputs and inputs that share a scale; 0 for all of them.
  int64_t block_outputs = 0;
  int64_t block_inputs = 0;
  // The scales' tensor is called so: "weight_scale" or "weight_scale_inv" (which multiplies, too).
  std::string scale_name = "weight_scale";
  // Whether activations are quantized by a scale that stands in the checkpoint.
  bool has_input_scale = false;

  friend bool operator==(const LinearScheme&, const LinearScheme&) = default;
};

// Such as "int4 in groups of 128, input groups by a table".
std::string SchemeText(const LinearScheme& scheme);

// What an operator may say about quantization: to take the checkpoint as it is, to insist on a
// method, or on a format of weights, into which floats are quantized at load: int4 to the nearest
// code in groups of 128 with zero points, or E4M3 with a scale for each channel.
enum class QuantizationChoice : uint8_t {
  kAuto,
  kNone,
  kAwq,
  kGptq,
  kCompressedTensors,
  kInt4,
  kFp8,
};
inline constexpr char kQuantizationChoices[] =
    "auto, none, awq, gptq, compressed-tensors, int4 or fp8";
std::optional<QuantizationChoice> ParseQuantizationChoice(absl::string_view text);
const char* QuantizationChoiceText(QuantizationChoice choice);

// The schemes of a checkpoint's Linears.
class QuantizationConfig {
 public:
  // Nothing is quantized.
  QuantizationConfig() = default;

  // Reads `fields`, the object quantization_config. INVALID_ARGUMENT for what contradicts itself,
  // UNIMPLEMENTED for what Quiver does not run; both name the field, what is allowed and what is
  // there.
  static absl::StatusOr<QuantizationConfig> Parse(JsonFile fields);

  // What an operator's choice makes of it. INVALID_ARGUMENT if the checkpoint is not what was
  // insisted on.
  absl::StatusOr<QuantizationConfig> With(QuantizationChoice choice) const;

  // "none", "awq", "gptq", "fp8", "compressed-tensors", "at load".
  const std::string& method() const { return method_; }

  // The method and its schemes, as part of a vector space's name: "awq: int4 in groups of 128".
  std::string Description() const;

  // How the Linear `module` is declared to be stored; `module` is named as Hugging Face does,
  // without the prefix "model.": "layers.0.mlp.up_proj".
  LinearScheme SchemeOf(absl::string_view module) const;

  friend bool operator==(const QuantizationConfig&, const QuantizationConfig&) = default;

 private:
  // A name, a part of one, or a pattern.
  struct Pattern {
    enum class Kind : uint8_t { kName, kPart, kRegex, kEverything };
    Kind kind = Kind::kName;
    std::string text;

    bool Matches(absl::string_view module) const;
    friend bool operator==(const Pattern&, const Pattern&) = default;
  };
  struct Group {
    std::vector<Pattern> targets;
    LinearScheme scheme;

    friend bool operator==(const Group&, const Group&) = default;
  };

  static std::vector<Pattern> ReadPatterns(JsonFile* fields, const char* key, bool parts);
  void ReadAwq(JsonFile* fields);
  void ReadGptq(JsonFile* fields);
  void ReadFp8(JsonFile* fields);
  void ReadCompressedTensors(JsonFile* fields);
  static LinearScheme ReadWeights(JsonFile* group, JsonFile* weights);

  std::string method_ = "none";
  // The first group with a target that matches has it, unless it is ignored.
  std::vector<Group> groups_;
  std::vector<Pattern> ignored_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_QUANTIZATION_CONFIG_H_
