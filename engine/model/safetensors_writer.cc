#include "engine/model/safetensors_writer.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

// The tensors' bytes begin at a multiple of this, as the reference writer has it.
constexpr size_t kHeaderAlignment = 8;

absl::Status FileError(const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": cannot be written: ", std::generic_category().message(errno)));
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path, std::FILE* file, int64_t missing_bytes)
    : path_(std::move(path)), file_(file), missing_bytes_(missing_bytes) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, const std::vector<Tensor>& tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    int64_t size = static_cast<int64_t>(DTypeSize(tensor.dtype));
    for (const int64_t extent : tensor.shape) size *= extent;
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  const std::string text = header.dump();
  const size_t size = (text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment;
  std::string bytes;
  for (size_t i = 0; i < sizeof(uint64_t); ++i) bytes += static_cast<char>(size >> (8 * i));
  bytes += text;
  bytes.append(size - text.size(), ' ');

  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) return FileError(path);
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, file, offset));
  if (std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size()) return FileError(path);
  return writer;
}

absl::Status SafetensorsWriter::Append(absl::Span<const std::byte> bytes) {
  missing_bytes_ -= static_cast<int64_t>(bytes.size());
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) return FileError(path_);
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Close() {
  if (std::fclose(std::exchange(file_, nullptr)) != 0) return FileError(path_);
  if (missing_bytes_ == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path_, ": its tensors have ", missing_bytes_, " bytes more than were written"));
}

}  // namespace quiver
