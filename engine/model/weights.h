#ifndef QUIVER_ENGINE_MODEL_WEIGHTS_H_
#define QUIVER_ENGINE_MODEL_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quiver {

// Every element type of the safetensors format that a checkpoint may hold.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kI64,
  kI32,
  kU8,
  kI8,
  kF64,
  kF8E5M2,
  kI16,
  kU16,
  kU32,
  kU64,
  kBool,
};

// Bytes of one element.
size_t DTypeSize(DType dtype);
// As the format spells it, such as "BF16".
const char* DTypeName(DType dtype);

// A read-only view of a tensor inside a mapped file. `data` need not be aligned to its element.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t size_bytes = 0;
  // File the tensor is in, for messages.
  std::string file;
};

// All tensors of a checkpoint, memory-mapped. Safe to read from any thread; views live as long as
// this object.
class Weights {
 public:
  // Maps model.safetensors, or every shard that model.safetensors.index.json names. Checks every
  // header: its length, its JSON, each dtype, each shape against its byte range, that ranges
  // neither overlap nor leave the file nor a gap, no duplicate name, and that index and shards
  // agree. DATA_LOSS names file and tensor; NOT_FOUND names the missing file.
  static absl::StatusOr<std::unique_ptr<Weights>> Open(const std::string& model_dir);

  // Tensors that lie in memory, which `memory` keeps. DropPages() leaves them there.
  static std::unique_ptr<Weights> InMemory(std::map<std::string, TensorView, std::less<>> tensors,
                                           std::shared_ptr<const void> memory);

  ~Weights();
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;

  // The tensor `name`, which must have exactly `shape`. NOT_FOUND or INVALID_ARGUMENT names tensor,
  // file, both shapes.
  absl::StatusOr<TensorView> Get(absl::string_view name, absl::Span<const int64_t> shape) const;

  bool Contains(absl::string_view name) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  // Sum of the elements of all tensors, and of their bytes.
  int64_t num_parameters() const;
  int64_t num_bytes() const;

  // Digest of every tensor's name, dtype, shape and bytes, in order of name; reads the whole
  // checkpoint, on up to `num_threads` threads, and drops the pages as it goes. Hexadecimal. Does
  // not depend on how tensors are spread over files.
  std::string Fingerprint(int num_threads) const;

  // Gives the memory behind a tensor that was copied elsewhere back to the system. Its view stays
  // valid: a later look reads the file again.
  void DropPages(const TensorView& tensor) const;

 private:
  struct MappedFile;
  Weights();
  absl::Status AddFile(const std::string& path);

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::shared_ptr<const void> memory_;
  std::map<std::string, TensorView, std::less<>> tensors_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_WEIGHTS_H_
