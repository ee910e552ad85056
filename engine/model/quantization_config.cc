#include "engine/model/quantization_config.h"

#include <algorithm>
#include <regex>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace quiver {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr int64_t kFp8Block = 128;
// Of a list of names, and of one name: what is longer is no list of a model's modules.
constexpr size_t kMaxPatterns = 100'000;
constexpr size_t kMaxPatternLength = 1000;
constexpr absl::string_view kRegexPrefix = "re:";
constexpr QuantizationChoice kChoices[] = {QuantizationChoice::kAuto,
                                           QuantizationChoice::kNone,
                                           QuantizationChoice::kAwq,
                                           QuantizationChoice::kGptq,
                                           QuantizationChoice::kCompressedTensors,
                                           QuantizationChoice::kInt4,
                                           QuantizationChoice::kFp8};
// What is quantized at load.
constexpr int64_t kAtLoadGroup = 128;
// What stands before a module's name where a checkpoint has the whole model.
constexpr absl::string_view kModelPrefixes[] = {"", "model.", "bert."};

// A regular expression over `name` from its begin, as Python's re.match.
bool MatchesRegex(const std::string& pattern, const std::string& name) {
  return std::regex_search(name, std::regex(pattern), std::regex_constants::match_continuous);
}

// Refuses a field that is there and neither null, false nor empty.
void MustBeAbsent(JsonFile* fields, const char* key) {
  const Json* value = fields->Find(key);
  if (value == nullptr || (value->is_structured() && value->empty()) || *value == false) return;
  fields->Refuse(kUnimplemented, key, "absent", *value);
}

// A number of inputs; -1 for all.
int64_t ReadGroupSize(JsonFile* fields, const char* key) {
  const Json* value = fields->Find(key);
  if (value != nullptr && *value == -1) return 0;
  for (const int64_t size : {32, 64, 128}) {
    if (value != nullptr && *value == size) return size;
  }
  fields->Refuse(kUnimplemented, key, "32, 64, 128, or -1 for the whole column",
                 value != nullptr ? *value : Json());
  return 0;
}

void MustBeInt4(JsonFile* fields, const char* key) {
  const int64_t bits = fields->Integer(key, 1, 64);
  if (bits != 4) fields->Refuse(kUnimplemented, key, "4", bits);
}

}  // namespace

std::optional<QuantizationChoice> ParseQuantizationChoice(absl::string_view text) {
  for (const QuantizationChoice choice : kChoices) {
    if (text == QuantizationChoiceText(choice)) return choice;
  }
  return std::nullopt;
}

const char* QuantizationChoiceText(QuantizationChoice choice) {
  switch (choice) {
    case QuantizationChoice::kAuto:
      return "auto";
    case QuantizationChoice::kNone:
      return "none";
    case QuantizationChoice::kAwq:
      return "awq";
    case QuantizationChoice::kGptq:
      return "gptq";
    case QuantizationChoice::kCompressedTensors:
      return "compressed-tensors";
    case QuantizationChoice::kInt4:
      return "int4";
    case QuantizationChoice::kFp8:
      return "fp8";
  }
  return "";
}

std::string SchemeText(const LinearScheme& scheme) {
  switch (scheme.format) {
    case WeightFormat::kFloat:
      return "float";
    case WeightFormat::kInt4:
      return absl::StrCat("int4 ",
                          scheme.group_size == 0 ? "by whole columns"
                                                 : absl::StrCat("in groups of ", scheme.group_size),
                          scheme.zero_points_less_one ? ", zero points stored less one" : "",
                          scheme.has_input_groups ? ", input groups by a table" : "");
    case WeightFormat::kFp8:
      return absl::StrCat(
          "fp8 ",
          scheme.block_inputs != 0
              ? absl::StrCat("in blocks of ", scheme.block_outputs, " x ", scheme.block_inputs)
          : scheme.block_outputs != 0 ? "by channels"
                                      : "by tensors",
          scheme.has_input_scale ? ", static activations" : "");
  }
  return "";
}

bool QuantizationConfig::Pattern::Matches(absl::string_view module) const {
  if (kind == Kind::kEverything) return true;
  return std::any_of(std::begin(kModelPrefixes), std::end(kModelPrefixes),
                     [&](absl::string_view prefix) {
                       const std::string name = absl::StrCat(prefix, module);
                       if (kind == Kind::kRegex) return MatchesRegex(text, name);
                       return kind == Kind::kPart ? absl::StrContains(name, text) : name == text;
                     });
}

std::vector<QuantizationConfig::Pattern> QuantizationConfig::ReadPatterns(JsonFile* fields,
                                                                          const char* key,
                                                                          bool parts) {
  std::vector<Pattern> patterns;
  const Json* names = fields->Find(key);
  if (names == nullptr) return patterns;
  if (!names->is_array() || names->size() > kMaxPatterns) {
    fields->Refuse(kInvalid, key, absl::StrCat("an array of at most ", kMaxPatterns, " names"),
                   *names);
    return patterns;
  }
  for (const Json& name : *names) {
    if (!name.is_string() || name.get_ref<const std::string&>().empty() ||
        name.get_ref<const std::string&>().size() > kMaxPatternLength) {
      fields->Refuse(kInvalid, key,
                     absl::StrCat("an array of names of 1 to ", kMaxPatternLength, " bytes"), name);
      return patterns;
    }
    absl::string_view text = name.get_ref<const std::string&>();
    Pattern pattern;
    if (absl::ConsumePrefix(&text, kRegexPrefix)) {
      pattern.kind = Pattern::Kind::kRegex;
      try {
        MatchesRegex(std::string(text), "layers.0.mlp.up_proj");
      } catch (const std::regex_error& e) {
        fields->Refuse(kInvalid, key, absl::StrCat("a regular expression (", e.what(), ")"), name);
        return patterns;
      }
    } else if (text == "Linear") {
      pattern.kind = Pattern::Kind::kEverything;
    } else if (parts) {
      pattern.kind = Pattern::Kind::kPart;
    }
    pattern.text = std::string(text);
    patterns.push_back(std::move(pattern));
  }
  return patterns;
}

// AutoAWQ's.
void QuantizationConfig::ReadAwq(JsonFile* fields) {
  const auto either = [&](const char* name, const char* old_name) {
    return fields->Find(name) == nullptr && fields->Find(old_name) != nullptr ? old_name : name;
  };
  LinearScheme scheme;
  scheme.format = WeightFormat::kInt4;
  scheme.int4_layout = Int4Layout::kAwq;
  scheme.has_zero_points = true;
  MustBeInt4(fields, either("bits", "w_bit"));
  scheme.group_size = ReadGroupSize(fields, either("group_size", "q_group_size"));
  const std::string version = absl::AsciiStrToLower(fields->String("version", "gemm"));
  if (version != "gemm") fields->Refuse(kUnimplemented, "version", "gemm", version);
  if (!fields->Bool("zero_point", true)) {
    fields->Refuse(kUnimplemented, "zero_point", "true", false);
  }
  const std::string backend = fields->String("backend", "autoawq");
  if (backend != "autoawq") fields->Refuse(kUnimplemented, "backend", "autoawq", backend);
  ignored_ = ReadPatterns(fields, "modules_to_not_convert", /*parts=*/true);
  groups_.push_back({{{Pattern::Kind::kEverything, ""}}, scheme});
}

// AutoGPTQ's and GPTQModel's.
void QuantizationConfig::ReadGptq(JsonFile* fields) {
  LinearScheme scheme;
  scheme.format = WeightFormat::kInt4;
  scheme.int4_layout = Int4Layout::kGptq;
  scheme.has_zero_points = true;
  MustBeInt4(fields, "bits");
  scheme.group_size = ReadGroupSize(fields, "group_size");
  scheme.has_input_groups = fields->Bool("desc_act", false);
  const std::string format = fields->String("checkpoint_format", "gptq");
  if (format != "gptq" && format != "gptq_v2") {
    fields->Refuse(kUnimplemented, "checkpoint_format", "gptq or gptq_v2", format);
  }
  scheme.zero_points_less_one = format == "gptq";
  const std::string pack_type = fields->String("pack_dtype", "int32");
  if (pack_type != "int32") fields->Refuse(kUnimplemented, "pack_dtype", "int32", pack_type);
  MustBeAbsent(fields, "is_marlin_format");
  MustBeAbsent(fields, "dynamic");
  ignored_ = ReadPatterns(fields, "modules_to_not_convert", /*parts=*/true);
  groups_.push_back({{{Pattern::Kind::kEverything, ""}}, scheme});
}

void QuantizationConfig::ReadFp8(JsonFile* fields) {
  LinearScheme scheme;
  scheme.format = WeightFormat::kFp8;
  const std::string format = fields->String("fmt", "e4m3");
  if (format != "e4m3" && format != "float8_e4m3fn") {
    fields->Refuse(kUnimplemented, "fmt", "e4m3", format);
  }
  if (const Json* block = fields->Find("weight_block_size"); block != nullptr) {
    if (*block != Json::array({kFp8Block, kFp8Block})) {
      fields->Refuse(kUnimplemented, "weight_block_size", "[128,128]", *block);
    }
    scheme.block_outputs = scheme.block_inputs = kFp8Block;
    scheme.scale_name = "weight_scale_inv";
  }
  const std::string activations = fields->String("activation_scheme", "dynamic");
  if (activations != "dynamic" && activations != "static") {
    fields->Refuse(kUnimplemented, "activation_scheme", "dynamic or static", activations);
  }
  scheme.has_input_scale = activations == "static";
  if (scheme.has_input_scale && scheme.block_inputs != 0) {
    fields->Refuse(kInvalid, "activation_scheme", "dynamic where weight_block_size is given",
                   activations);
  }
  for (const char* key : {"modules_to_not_convert", "ignored_layers"}) {
    for (Pattern& pattern : ReadPatterns(fields, key, /*parts=*/true)) {
      ignored_.push_back(std::move(pattern));
    }
  }
  groups_.push_back({{{Pattern::Kind::kEverything, ""}}, scheme});
}

// A group's `weights`; `group` is the group, whose format overrides that of the whole.
LinearScheme QuantizationConfig::ReadWeights(JsonFile* group, JsonFile* weights) {
  LinearScheme scheme;
  const std::string type = weights->String("type", "int");
  const int64_t bits = weights->Integer("num_bits", 1, 64);
  const std::string format = group->String("format");
  const std::string strategy = weights->String("strategy", "tensor");
  const bool symmetric = weights->Bool("symmetric", true);
  if (weights->Bool("dynamic", false)) {
    weights->Refuse(kUnimplemented, "dynamic", "false", true);
  }
  if (type == "int" && bits == 4 && format == "pack-quantized") {
    scheme.format = WeightFormat::kInt4;
    scheme.int4_layout = Int4Layout::kCompressedTensors;
    scheme.has_zero_points = !symmetric;
    if (strategy == "group") {
      scheme.group_size = ReadGroupSize(weights, "group_size");
    } else if (strategy != "channel") {
      weights->Refuse(kUnimplemented, "strategy", "group or channel", strategy);
    }
    // "weight" and "static" order the quantizer's work, not the inputs.
    const Json* order = weights->Find("actorder");
    if (order != nullptr && (*order == "group" || *order == true)) {
      scheme.has_input_groups = true;
    } else if (order != nullptr && *order != "weight" && *order != "static" && *order != false) {
      weights->Refuse(kUnimplemented, "actorder", "null, group, weight or static", *order);
    }
    return scheme;
  }
  if (type == "float" && bits == 8 &&
      (format == "float-quantized" || format == "naive-quantized")) {
    scheme.format = WeightFormat::kFp8;
    if (!symmetric) weights->Refuse(kUnimplemented, "symmetric", "true", false);
    if (strategy == "channel") {
      scheme.block_outputs = 1;
    } else if (strategy == "block") {
      const Json* block = weights->Find("block_structure");
      if (block == nullptr || *block != Json::array({kFp8Block, kFp8Block})) {
        weights->Refuse(kUnimplemented, "block_structure", "[128,128]",
                        block != nullptr ? *block : Json());
      }
      scheme.block_outputs = scheme.block_inputs = kFp8Block;
    } else if (strategy != "tensor") {
      weights->Refuse(kUnimplemented, "strategy", "tensor, channel or block", strategy);
    }
    return scheme;
  }
  weights->Refuse(kUnimplemented, "num_bits, type and format",
                  "4, int and pack-quantized, or 8, float and float-quantized",
                  absl::StrCat(bits, ", ", type, " and ", format));
  return scheme;
}

void QuantizationConfig::ReadCompressedTensors(JsonFile* fields) {
  MustBeAbsent(fields, "sparsity_config");
  MustBeAbsent(fields, "transform_config");
  const std::string format = fields->String("format", "");
  const Json* groups = fields->Find("config_groups");
  if (groups == nullptr || !groups->is_object() || groups->empty()) {
    fields->Refuse(kInvalid, "config_groups", "an object of groups",
                   groups != nullptr ? *groups : Json());
    return;
  }
  for (const auto& [name, value] : groups->items()) {
    Json object = value.is_object() ? value : Json::object();
    if (!object.contains("format") || object["format"].is_null()) object["format"] = format;
    const std::string path = absl::StrCat(fields->path(), ".config_groups.", name);
    JsonFile group(path, object);
    const Json* weights_value = group.Find("weights");
    JsonFile weights(absl::StrCat(path, ".weights"),
                     weights_value != nullptr ? *weights_value : Json::object());
    Group read;
    read.targets = ReadPatterns(&group, "targets", /*parts=*/false);
    if (read.targets.empty()) {
      group.Refuse(kInvalid, "targets", "an array of names, of which one at least", Json());
    }
    read.scheme = ReadWeights(&group, &weights);
    MustBeAbsent(&group, "output_activations");
    if (const Json* inputs = group.Find("input_activations"); inputs != nullptr) {
      JsonFile activations(absl::StrCat(path, ".input_activations"), *inputs);
      const std::string type = activations.String("type", "int");
      const int64_t bits = activations.Integer("num_bits", 1, 64);
      if (read.scheme.format != WeightFormat::kFp8 || type != "float" || bits != 8) {
        activations.Refuse(kUnimplemented, "num_bits and type", "8 and float, beside fp8 weights",
                           absl::StrCat(bits, " and ", type));
      }
      read.scheme.has_input_scale = !activations.Bool("dynamic", false);
      group.Adopt(activations.status());
    }
    fields->Adopt(weights.status());
    fields->Adopt(group.status());
    groups_.push_back(std::move(read));
  }
  ignored_ = ReadPatterns(fields, "ignore", /*parts=*/false);
}

absl::StatusOr<QuantizationConfig> QuantizationConfig::Parse(JsonFile fields) {
  QuantizationConfig config;
  config.method_ = fields.String("quant_method");
  if (config.method_ == "awq") {
    config.ReadAwq(&fields);
  } else if (config.method_ == "gptq") {
    config.ReadGptq(&fields);
  } else if (config.method_ == "fp8") {
    config.ReadFp8(&fields);
  } else if (config.method_ == "compressed-tensors") {
    config.ReadCompressedTensors(&fields);
  } else {
    fields.Refuse(kUnimplemented, "quant_method", "awq, gptq, fp8 or compressed-tensors",
                  config.method_);
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

absl::StatusOr<QuantizationConfig> QuantizationConfig::With(QuantizationChoice choice) const {
  if (choice == QuantizationChoice::kAuto) return *this;
  const auto mismatch = [&](absl::string_view wanted) {
    return absl::InvalidArgumentError(absl::StrCat("--quantization ",
                                                   QuantizationChoiceText(choice), " needs ",
                                                   wanted, ", config.json says ", Description()));
  };
  if (choice != QuantizationChoice::kInt4 && choice != QuantizationChoice::kFp8) {
    if (method_ == QuantizationChoiceText(choice)) return *this;
    return mismatch(choice == QuantizationChoice::kNone ? "a checkpoint that is not quantized"
                                                        : "a checkpoint that is quantized so");
  }
  const WeightFormat format =
      choice == QuantizationChoice::kInt4 ? WeightFormat::kInt4 : WeightFormat::kFp8;
  if (method_ != "none") {
    const bool is_so = std::all_of(groups_.begin(), groups_.end(), [&](const Group& group) {
      return group.scheme.format == format;
    });
    if (is_so) return *this;
    return mismatch("weights in that format or in floats");
  }
  QuantizationConfig config;
  config.method_ = "at load";
  LinearScheme scheme;
  scheme.format = format;
  scheme.at_load = true;
  if (format == WeightFormat::kInt4) {
    scheme.group_size = kAtLoadGroup;
    scheme.has_zero_points = true;
  } else {
    scheme.block_outputs = 1;
  }
  config.groups_.push_back({{{Pattern::Kind::kEverything, ""}}, scheme});
  return config;
}

std::string QuantizationConfig::Description() const {
  std::vector<std::string> texts;
  for (const Group& group : groups_) {
    std::string text = SchemeText(group.scheme);
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(text);
  }
  return texts.empty() ? method_ : absl::StrCat(method_, ": ", absl::StrJoin(texts, "; "));
}

LinearScheme QuantizationConfig::SchemeOf(absl::string_view module) const {
  const auto matches = [&](const Pattern& pattern) { return pattern.Matches(module); };
  if (std::any_of(ignored_.begin(), ignored_.end(), matches)) return {};
  for (const Group& group : groups_) {
    if (std::any_of(group.targets.begin(), group.targets.end(), matches)) return group.scheme;
  }
  return {};
}

}  // namespace quiver
