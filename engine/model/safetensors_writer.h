#ifndef QUIVER_ENGINE_MODEL_SAFETENSORS_WRITER_H_
#define QUIVER_ENGINE_MODEL_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/weights.h"

namespace quiver {

// Writes a safetensors file (see safetensors_header.h) piece by piece: memory does not grow with
// it. Not thread-safe.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
  };

  // Replaces `path` and writes the header. Errors, here and below, name the file.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, const std::vector<Tensor>& tensors);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes of the tensors, in the order they were given, in pieces of any size.
  absl::Status Append(absl::Span<const std::byte> bytes);

  // FAILED_PRECONDITION unless exactly the bytes of all tensors were appended. Nothing may follow.
  absl::Status Close();

 private:
  SafetensorsWriter(std::string path, std::FILE* file, int64_t missing_bytes);

  const std::string path_;
  std::FILE* file_;
  int64_t missing_bytes_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_SAFETENSORS_WRITER_H_
