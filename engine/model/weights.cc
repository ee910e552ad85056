#include "engine/model/weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/digest.h"
#include "engine/model/json_file.h"
#include "engine/model/safetensors_header.h"

namespace quiver {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

std::string ShapeText(absl::Span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

int64_t NumElements(const TensorView& tensor) {
  return static_cast<int64_t>(tensor.size_bytes / DTypeSize(tensor.dtype));
}

// The pages that lie wholly within the range; the rest of the first and the last may be another's.
void DropPageRange(const std::byte* data, size_t size) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

// Name of each shard, with the tensors that the index says it has.
absl::StatusOr<std::map<std::string, std::set<std::string>>> ReadIndex(const std::string& path) {
  absl::StatusOr<JsonFile> index = JsonFile::Read(path, kMaxIndexBytes);
  if (!index.ok()) {
    return absl::IsNotFound(index.status()) ? index.status()
                                            : absl::DataLossError(index.status().message());
  }
  const nlohmann::ordered_json* map = index->Find("weight_map");
  if (map == nullptr || !map->is_object() || map->empty()) {
    return absl::DataLossError(
        absl::StrCat(path, ": weight_map must be an object of tensor names and files"));
  }
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || absl::StrContains(name, '/') || absl::StrContains(name, '\0')) {
      return absl::DataLossError(absl::StrCat(path, ": tensor \"", absl::Utf8SafeCEscape(tensor),
                                              "\" must be in a file beside it, is in ",
                                              Preview(file)));
    }
    shards[name].insert(tensor);
  }
  return shards;
}

}  // namespace

// The bytes of a file, unmapped on destruction.
struct Weights::MappedFile {
  static absl::StatusOr<std::unique_ptr<MappedFile>> Map(const std::string& path) {
    const auto error = [&](absl::StatusCode code) {
      return absl::Status(
          code, absl::StrCat(path, ": cannot be read: ", std::generic_category().message(errno)));
    };
    // Without O_NONBLOCK a FIFO of that name would wait here for a writer.
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
      return error(errno == ENOENT ? absl::StatusCode::kNotFound
                                   : absl::StatusCode::kFailedPrecondition);
    }
    auto file = std::make_unique<MappedFile>();
    struct stat info = {};
    absl::Status status;
    if (fstat(fd, &info) != 0) {
      status = error(absl::StatusCode::kFailedPrecondition);
    } else if (!S_ISREG(info.st_mode)) {
      status = absl::FailedPreconditionError(absl::StrCat(path, ": is not a regular file"));
    } else if (info.st_size > 0) {
      void* data = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
      if (data == MAP_FAILED) {
        status = error(absl::StatusCode::kFailedPrecondition);
      } else {
        file->bytes = {static_cast<const std::byte*>(data), static_cast<size_t>(info.st_size)};
      }
    }
    close(fd);
    if (!status.ok()) return status;
    return file;
  }

  ~MappedFile() {
    if (!bytes.empty()) munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
  }

  absl::Span<const std::byte> bytes;
};

Weights::Weights() = default;
Weights::~Weights() = default;

absl::Status Weights::AddFile(const std::string& path) {
  absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Map(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::map<std::string, TensorView>> tensors =
      ParseSafetensors(path, (*file)->bytes);
  if (!tensors.ok()) return tensors.status();
  for (auto& [name, tensor] : *tensors) {
    const auto [it, inserted] = tensors_.emplace(name, std::move(tensor));
    if (!inserted) {
      return absl::DataLossError(absl::StrCat(path, ": tensor \"", absl::Utf8SafeCEscape(name),
                                              "\" is in ", it->second.file, " too"));
    }
  }
  files_.push_back(*std::move(file));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Weights>> Weights::Open(const std::string& model_dir) {
  std::unique_ptr<Weights> weights(new Weights());
  const std::string single = absl::StrCat(model_dir, "/", kSingleFile);
  absl::Status status = weights->AddFile(single);
  if (status.ok()) return weights;
  if (!absl::IsNotFound(status)) return status;

  const std::string index_path = absl::StrCat(model_dir, "/", kIndexFile);
  absl::StatusOr<std::map<std::string, std::set<std::string>>> shards = ReadIndex(index_path);
  if (absl::IsNotFound(shards.status())) {
    return absl::NotFoundError(
        absl::StrCat(model_dir, ": has neither ", kSingleFile, " nor ", kIndexFile));
  }
  if (!shards.ok()) return shards.status();
  for (const auto& [name, tensors] : *shards) {
    const std::string path = absl::StrCat(model_dir, "/", name);
    const size_t before = weights->tensors_.size();
    status = weights->AddFile(path);
    if (!status.ok()) return status;
    for (const std::string& tensor : tensors) {
      const auto it = weights->tensors_.find(tensor);
      if (it == weights->tensors_.end() || it->second.file != path) {
        return absl::DataLossError(absl::StrCat(path, ": has no tensor \"",
                                                absl::Utf8SafeCEscape(tensor), "\", which ",
                                                kIndexFile, " says is in it"));
      }
    }
    if (weights->tensors_.size() - before != tensors.size()) {
      return absl::DataLossError(absl::StrCat(path, ": has ", weights->tensors_.size() - before,
                                              " tensors, ", kIndexFile, " says ", tensors.size()));
    }
  }
  return weights;
}

std::unique_ptr<Weights> Weights::InMemory(std::map<std::string, TensorView, std::less<>> tensors,
                                           std::shared_ptr<const void> memory) {
  std::unique_ptr<Weights> weights(new Weights());
  weights->tensors_ = std::move(tensors);
  weights->memory_ = std::move(memory);
  return weights;
}

absl::StatusOr<TensorView> Weights::Get(absl::string_view name,
                                        absl::Span<const int64_t> shape) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) {
    std::set<std::string> files;
    for (const auto& entry : tensors_) files.insert(entry.second.file);
    return absl::NotFoundError(absl::StrCat("tensor \"", name, "\" of shape ", ShapeText(shape),
                                            " is in none of: ", absl::StrJoin(files, ", ")));
  }
  const TensorView& tensor = it->second;
  if (absl::MakeConstSpan(tensor.shape) != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.file, ": tensor \"", name, "\" must have the shape ", ShapeText(shape),
                     " by config.json, has ", ShapeText(tensor.shape)));
  }
  return tensor;
}

bool Weights::Contains(absl::string_view name) const {
  return tensors_.find(name) != tensors_.end();
}

int64_t Weights::num_parameters() const {
  int64_t total = 0;
  for (const auto& entry : tensors_) total += NumElements(entry.second);
  return total;
}

int64_t Weights::num_bytes() const {
  int64_t total = 0;
  for (const auto& entry : tensors_) total += static_cast<int64_t>(entry.second.size_bytes);
  return total;
}

void Weights::DropPages(const TensorView& tensor) const {
  if (memory_ == nullptr) DropPageRange(tensor.data, tensor.size_bytes);
}

std::string Weights::Fingerprint(int num_threads) const {
  // A digest of the pieces' digests, so that one large tensor occupies every thread.
  constexpr size_t kPieceBytes = 8 << 20;
  std::vector<absl::Span<const std::byte>> pieces;
  for (const auto& entry : tensors_) {
    absl::Span<const std::byte> rest(entry.second.data, entry.second.size_bytes);
    for (; !rest.empty(); rest.remove_prefix(std::min(rest.size(), kPieceBytes))) {
      pieces.push_back(rest.subspan(0, kPieceBytes));
    }
  }
  std::vector<std::string> digests(pieces.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < pieces.size(); i = next++) {
      digests[i] = HexDigest(
          absl::string_view(reinterpret_cast<const char*>(pieces[i].data()), pieces[i].size()));
      if (memory_ == nullptr) DropPageRange(pieces[i].data(), pieces[i].size());
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();

  std::string description;
  auto digest = digests.begin();
  for (const auto& [name, tensor] : tensors_) {
    absl::StrAppend(&description, name.size(), ":", name, " ", DTypeName(tensor.dtype), " ",
                    ShapeText(tensor.shape));
    for (size_t done = 0; done < tensor.size_bytes; done += kPieceBytes) {
      absl::StrAppend(&description, " ", *digest++);
    }
    description += '\n';
  }
  return HexDigest(description);
}

}  // namespace quiver
