#include "engine/model_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"

namespace quiver {
namespace {

// A file's error, with the file that it is about.
absl::Status Annotate(const absl::Status& status, absl::string_view where) {
  return absl::Status(status.code(), absl::StrCat(where, ": ", status.message()));
}

absl::Status CheckDirectory(const std::string& model_dir) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(model_dir, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(absl::StrCat("there is no model directory '", model_dir, "'"));
  }
  if (!std::filesystem::is_directory(status)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", model_dir, "' must be a directory of a Hugging Face model"));
  }
  return absl::OkStatus();
}

std::string BaseName(const std::string& model_dir) {
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(model_dir, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::string name = path.filename().string();
  return name.empty() ? "model" : name;
}

// Of the type that most of the bytes are stored in.
std::string WeightType(const Weights& weights) {
  std::array<size_t, static_cast<size_t>(DType::kBool) + 1> bytes = {};
  for (const auto& [name, tensor] : weights.tensors()) {
    bytes[static_cast<size_t>(tensor.dtype)] += tensor.size_bytes;
  }
  const auto most = std::max_element(bytes.begin(), bytes.end());
  const DType dtype = static_cast<DType>(most - bytes.begin());
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kF16:
      return "float16";
    case DType::kBF16:
      return "bfloat16";
    case DType::kF8E4M3:
      return "fp8";
    case DType::kI32:
    case DType::kU32:
      // Eight to a word.
      return "int4";
    default:
      return DTypeName(dtype);
  }
}

}  // namespace

absl::StatusOr<ModelFiles> OpenModelFiles(const std::string& model_dir, const std::string& name,
                                          QuantizationChoice quantization) {
  if (absl::Status s = CheckDirectory(model_dir); !s.ok()) return s;

  ModelFiles files;
  absl::StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  if (!config.ok()) return config.status();
  files.info.config = *std::move(config);
  absl::StatusOr<QuantizationConfig> chosen =
      files.info.config.quantization_config.With(quantization);
  if (!chosen.ok()) return chosen.status();
  files.info.config.quantization_config = *std::move(chosen);
  files.info.config.quantization = files.info.config.quantization_config.Description();
  files.info.name = name.empty() ? BaseName(model_dir) : name;

  const std::string tokenizer_path = model_dir + "/tokenizer.json";
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(tokenizer_path);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), tokenizer_path);
  files.tokenizer = *std::move(tokenizer);

  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(model_dir);
  if (!weights.ok()) return weights.status();
  if (files.info.config.quantization_config.method() == "none") {
    files.info.num_parameters = (*weights)->num_parameters();
  } else {
    for (const ModelTensor& tensor : ModelTensors(files.info.config)) {
      files.info.num_parameters += tensor.num_elements();
    }
  }
  files.info.weight_bytes = (*weights)->num_bytes();
  files.info.weight_type = WeightType(**weights);
  files.weights = *std::move(weights);
  return files;
}

}  // namespace quiver
