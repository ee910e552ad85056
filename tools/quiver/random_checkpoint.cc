#include "tools/quiver/random_checkpoint.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/json_file.h"
#include "engine/model/model_shapes.h"
#include "engine/model/model_tensors.h"
#include "engine/model/random_weights.h"
#include "engine/model/safetensors_writer.h"
#include "engine/text/tokenizer.h"
#include "kernels/cpu/thread_pool.h"
#include "nlohmann/json.hpp"
#include "tools/quiver/checkpoint_files.h"

namespace quiver {
namespace {

using nlohmann::ordered_json;

// What is made before it is written.
constexpr int64_t kPieceBytes = int64_t{32} << 20;

const char* TorchName(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
}

// A directory beside `final_dir`, which takes its name when it is whole and is removed otherwise.
class StagedDirectory {
 public:
  static absl::StatusOr<StagedDirectory> Make(const std::string& final_dir) {
    std::error_code error;
    if (std::filesystem::exists(final_dir, error) && !std::filesystem::is_empty(final_dir, error)) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", final_dir, "' must not be there, or be an empty directory"));
    }
    const std::filesystem::path parent =
        std::filesystem::absolute(final_dir, error).lexically_normal().parent_path();
    std::filesystem::create_directories(parent, error);
    std::string staging = absl::StrCat(parent.string(), "/.checkpoint-XXXXXX");
    if (mkdtemp(staging.data()) == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat("no directory can be made in '", parent.string(), "'"));
    }
    return StagedDirectory(std::move(staging), final_dir);
  }
  StagedDirectory(StagedDirectory&& other) noexcept
      : staging_(std::exchange(other.staging_, "")), final_(std::move(other.final_)) {}
  StagedDirectory& operator=(StagedDirectory&&) = delete;
  ~StagedDirectory() {
    std::error_code error;
    if (!staging_.empty()) std::filesystem::remove_all(staging_, error);
  }

  const std::string& path() const { return staging_; }

  absl::Status Commit() {
    std::error_code error;
    // mkdtemp's are the owner's alone.
    std::filesystem::permissions(staging_, std::filesystem::perms(0755), error);
    std::filesystem::rename(staging_, final_, error);
    if (error) {
      return absl::FailedPreconditionError(
          absl::StrCat("'", final_, "' cannot be made: ", error.message()));
    }
    staging_.clear();
    return absl::OkStatus();
  }

 private:
  StagedDirectory(std::string staging, std::string final_dir)
      : staging_(std::move(staging)), final_(std::move(final_dir)) {}

  std::string staging_;
  std::string final_;
};

absl::StatusOr<ordered_json> BaseConfig(const RandomCheckpointOptions& options) {
  if (!options.config_file.empty()) {
    absl::StatusOr<JsonFile> file = JsonFile::Read(options.config_file);
    if (!file.ok()) return file.status();
    ordered_json json = file->value();
    // What is written is not quantized.
    json.erase("quantization_config");
    return json;
  }
  const absl::StatusOr<ModelConfig> shape = NamedModelShape(options.shape);
  if (!shape.ok()) return shape.status();
  return ConfigJson(*shape, "");
}

// Writes all files but weights and tokenizer to `dir` and reads them back.
absl::StatusOr<ModelConfig> WriteConfig(const RandomCheckpointOptions& options,
                                        const std::string& dir) {
  absl::StatusOr<ordered_json> json = BaseConfig(options);
  if (!json.ok()) return json.status();
  if (options.num_layers > 0) {
    (*json)["num_hidden_layers"] = options.num_layers;
    json->erase("layer_types");
    json->erase("max_window_layers");
  }
  if (options.vocab_size > 0) (*json)["vocab_size"] = options.vocab_size;
  (*json)["torch_dtype"] = TorchName(options.dtype);
  json->erase("dtype");
  absl::Status status = WriteTextFile(dir + "/config.json", json->dump(2));
  if (!status.ok()) return status;

  absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  if (!config.ok()) return config;
  if (const auto shape = NamedModelShape(options.shape); shape.ok()) {
    config->default_max_tokens = shape->default_max_tokens;
    config->prompts = shape->prompts;
  }
  config->normalizes = true;
  status = WriteSentenceFiles(*config, dir);
  if (!status.ok()) return status;
  return LoadModelConfig(dir);
}

absl::Status WriteTokenizer(const RandomCheckpointOptions& options, const ModelConfig& config,
                            const std::string& dir) {
  const std::string path = dir + "/tokenizer.json";
  if (options.tokenizer_dir.empty()) {
    const absl::Status status = WriteTextFile(path, PlainTokenizerJson(config.family).dump(1));
    if (!status.ok()) return status;
  } else {
    std::error_code error;
    const std::string from = options.tokenizer_dir + "/tokenizer.json";
    std::filesystem::copy_file(from, path, error);
    if (error) {
      return absl::NotFoundError(absl::StrCat(from, ": cannot be copied: ", error.message()));
    }
    // Says how long an input may be, among other things; not every model has it.
    std::filesystem::copy_file(options.tokenizer_dir + "/tokenizer_config.json",
                               dir + "/tokenizer_config.json", error);
  }
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(path);
  if (!tokenizer.ok()) return tokenizer.status();
  if ((*tokenizer)->vocabulary_size() > config.vocab_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("the vocabulary must have room for the tokenizer's ids: at least ",
                     (*tokenizer)->vocabulary_size(), ", has ", config.vocab_size));
  }
  return absl::OkStatus();
}

// The tensors of each file, in order.
std::vector<std::vector<ModelTensor>> Shards(const ModelConfig& config, const RandomTensors& random,
                                             int64_t shard_bytes) {
  std::vector<std::vector<ModelTensor>> shards(1);
  int64_t bytes = 0;
  for (ModelTensor& tensor : ModelTensors(config)) {
    const int64_t size = random.SizeBytes(tensor);
    if (!shards.back().empty() && bytes + size > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

class WeightsWriter {
 public:
  WeightsWriter(const RandomTensors& random, cpu::ThreadPool* pool,
                std::function<void(int64_t)> wrote)
      : random_(random), pool_(pool), wrote_(std::move(wrote)), piece_(kPieceBytes) {}

  absl::Status Write(const std::string& path, const std::vector<ModelTensor>& tensors) {
    std::vector<SafetensorsWriter::Tensor> header;
    for (const ModelTensor& tensor : tensors) {
      header.push_back({tensor.name, random_.dtype(), tensor.shape});
    }
    absl::StatusOr<std::unique_ptr<SafetensorsWriter>> file =
        SafetensorsWriter::Create(path, header);
    if (!file.ok()) return file.status();
    const auto element = static_cast<int64_t>(DTypeSize(random_.dtype()));
    for (const ModelTensor& tensor : tensors) {
      const int64_t count = tensor.num_elements();
      for (int64_t begin = 0; begin < count; begin += kPieceBytes / element) {
        const int64_t n = std::min(kPieceBytes / element, count - begin);
        random_.Fill(tensor, begin, n, piece_.data(), pool_);
        const absl::Status status =
            (*file)->Append({piece_.data(), static_cast<size_t>(n * element)});
        if (!status.ok()) return status;
        wrote_(n * element);
      }
    }
    return (*file)->Close();
  }

 private:
  const RandomTensors& random_;
  cpu::ThreadPool* const pool_;
  const std::function<void(int64_t)> wrote_;
  std::vector<std::byte> piece_;
};

}  // namespace

absl::StatusOr<RandomCheckpoint> WriteRandomCheckpoint(
    const RandomCheckpointOptions& options,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  absl::StatusOr<StagedDirectory> dir = StagedDirectory::Make(options.output_dir);
  if (!dir.ok()) return dir.status();
  const absl::StatusOr<ModelConfig> config = WriteConfig(options, dir->path());
  if (!config.ok()) return config.status();
  absl::Status status = WriteTokenizer(options, *config, dir->path());
  if (!status.ok()) return status;
  const absl::StatusOr<RandomTensors> random =
      RandomTensors::Create(*config, options.dtype, options.seed);
  if (!random.ok()) return random.status();

  RandomCheckpoint result;
  for (const ModelTensor& tensor : ModelTensors(*config)) {
    result.parameters += tensor.num_elements();
    result.weight_bytes += random->SizeBytes(tensor);
  }
  const std::vector<std::vector<ModelTensor>> shards =
      Shards(*config, *random, options.shard_bytes);
  result.num_files = static_cast<int>(shards.size());

  cpu::ThreadPool pool(options.num_threads > 0 ? options.num_threads : cpu::AvailableCores());
  int64_t done = 0;
  WeightsWriter writer(*random, &pool, [&](int64_t bytes) {
    done += bytes;
    progress(done, result.weight_bytes);
  });
  ordered_json weight_map = ordered_json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                                  i + 1, shards.size());
    for (const ModelTensor& tensor : shards[i]) weight_map[tensor.name] = name;
    status = writer.Write(absl::StrCat(dir->path(), "/", name), shards[i]);
    if (!status.ok()) return status;
  }
  if (shards.size() > 1) {
    const ordered_json index = {{"metadata", {{"total_size", result.weight_bytes}}},
                                {"weight_map", weight_map}};
    status = WriteTextFile(dir->path() + "/model.safetensors.index.json", index.dump(2));
    if (!status.ok()) return status;
  }
  status = dir->Commit();
  if (!status.ok()) return status;
  return result;
}

}  // namespace quiver
