// Embedder::Create: from a Hugging Face directory to an engine.
#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/embedder.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/cpu_backend.h"
#include "engine/text/tokenizer.h"
#include "kernels/cpu/thread_pool.h"

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
    default:
      return DTypeName(dtype);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Embedder>> Embedder::Create(Options options,
                                                           SchedulerObserver* observer) {
  if (absl::Status s = CheckDirectory(options.model_dir); !s.ok()) return s;

  ModelInfo info;
  absl::StatusOr<ModelConfig> config = LoadModelConfig(options.model_dir);
  if (!config.ok()) return config.status();
  info.config = *std::move(config);
  info.name = options.name.empty() ? BaseName(options.model_dir) : options.name;

  const std::string tokenizer_path = options.model_dir + "/tokenizer.json";
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(tokenizer_path);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), tokenizer_path);

  absl::StatusOr<std::unique_ptr<Weights>> opened = Weights::Open(options.model_dir);
  if (!opened.ok()) return opened.status();
  const std::shared_ptr<const Weights> weights = *std::move(opened);
  info.num_parameters = weights->num_parameters();
  info.weight_bytes = weights->num_bytes();
  info.weight_type = WeightType(*weights);

  // The backend first: it refuses what does not fit the configuration before all of the checkpoint
  // is read for its digest.
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      CreateCpuBackend(info.config, weights,
                       {.num_threads = options.num_threads,
                        .max_batch_tokens = options.max_batch_tokens,
                        .max_input_tokens = options.max_input_tokens});
  if (!backend.ok()) return backend.status();
  const int threads = options.num_threads > 0 ? options.num_threads : cpu::AvailableCores();
  info.weights_fingerprint = weights->Fingerprint(threads);

  return CreateWith(std::move(options), std::move(info), *std::move(tokenizer), *std::move(backend),
                    observer);
}

}  // namespace quiver
