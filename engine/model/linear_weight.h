// A Linear's weight matrix in whatever layout a checkpoint has it, read in one form.
#ifndef QUIVER_ENGINE_MODEL_LINEAR_WEIGHT_H_
#define QUIVER_ENGINE_MODEL_LINEAR_WEIGHT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/quantization_config.h"
#include "engine/model/weights.h"

namespace quiver {

// W [outputs, inputs], y = x W^T, as views of a checkpoint's tensors. Immutable; any number of
// threads may read at once. The checkpoint must outlive it.
//
// An element of W is, in F32 arithmetic:
//   kFloat: what is stored;
//   kInt4:  (q - z) * s, with a code q from 0 to 15, and the zero point z (0 to 16) and scale s of
//           its output and its input's group;
//   kFp8:   q * s, with a code q in E4M3 and the scale s of its block.
class LinearWeight {
 public:
  // Finds the tensors of `prefix` + `module` and checks all but the codes. A module that is
  // declared to be quantized and is stored in floats is taken as it is stored. NOT_FOUND,
  // INVALID_ARGUMENT, or DATA_LOSS for values that no quantizer writes, name file and tensor.
  static absl::StatusOr<LinearWeight> Find(const Weights& weights, const std::string& prefix,
                                           const std::string& module, int64_t outputs,
                                           int64_t inputs, const LinearScheme& scheme);

  WeightFormat format() const { return format_; }
  int64_t outputs() const { return outputs_; }
  int64_t inputs() const { return inputs_; }

  // Whether it is stored in floats and quantized as it is read.
  bool at_load() const { return at_load_; }
  // kFloat, and kFp8 unless at_load(): the matrix as it is stored, [outputs, inputs] of F32, F16,
  // BF16 or F8_E4M3.
  const TensorView& stored() const { return codes_; }

  // kInt4: inputs of a group, and groups of an output. All groups but the last are full.
  int64_t group_inputs() const { return group_inputs_; }
  int64_t num_groups() const { return (inputs_ + group_inputs_ - 1) / group_inputs_; }
  // kInt4: the type that scales are stored in. Each is exactly a number of that type.
  DType scale_type() const { return at_load_ ? DType::kBF16 : scales_.dtype; }
  // kInt4: which input each column of the codes belongs to, a permutation of the inputs; empty
  // where column j belongs to input j. Columns are in order of their groups: column j is in group
  // j / group_inputs().
  const std::vector<int32_t>& column_inputs() const { return column_inputs_; }

  // kInt4: of outputs [begin, begin + count), `codes` [count, inputs] one a byte, and
  // `zero_points` and `scales` [count, num_groups()]. Quickest where begin and count are multiples
  // of 64.
  void ReadInt4(int64_t begin, int64_t count, uint8_t* codes, uint8_t* zero_points,
                float* scales) const;

  // kFp8: outputs and inputs of a block, all of the matrix's at most.
  int64_t block_outputs() const { return block_outputs_; }
  int64_t block_inputs() const { return block_inputs_; }
  // kFp8: of outputs [begin, begin + count), `codes` [count, inputs] and `scales` [count,
  // ceil(inputs / block_inputs())], each output with its block's.
  void ReadFp8(int64_t begin, int64_t count, uint8_t* codes, float* scales) const;
  // kFp8 unless at_load(): the scales [ceil(outputs / block_outputs), ceil(inputs /
  // block_inputs)]. Where the checkpoint has one, the scale that activations are quantized with.
  const std::vector<float>& block_scales() const { return block_scales_; }
  std::optional<float> input_scale() const { return input_scale_; }

  // Reads what outputs [begin, begin + count) are stored as: DATA_LOSS, with file and tensor, if a
  // code of kFp8 is NaN, or a float to be quantized is not finite. Codes of kInt4 cannot be wrong.
  absl::Status CheckCodes(int64_t begin, int64_t count) const;

  // Elements of outputs [begin, begin + count), [count, inputs], as defined above.
  void Dequantize(int64_t begin, int64_t count, float* out) const;

  // Every tensor that was found, so that its pages can be dropped.
  const std::vector<TensorView>& tensors() const { return tensors_; }

 private:
  class Finder;

  LinearWeight() = default;

  void SetAtLoad(const LinearScheme& scheme);

  std::string name_;
  WeightFormat format_ = WeightFormat::kFloat;
  bool at_load_ = false;
  Int4Layout layout_ = Int4Layout::kAwq;
  int64_t outputs_ = 0;
  int64_t inputs_ = 0;
  std::vector<TensorView> tensors_;
  TensorView codes_;
  // kInt4.
  int64_t group_inputs_ = 1;
  TensorView scales_;
  std::optional<TensorView> zero_points_;
  int zero_point_offset_ = 0;
  std::vector<int32_t> column_inputs_;
  // kFp8.
  int64_t block_outputs_ = 1;
  int64_t block_inputs_ = 1;
  std::vector<float> block_scales_;
  std::optional<float> input_scale_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_LINEAR_WEIGHT_H_
