// Bytes of the input, decompressed.
#ifndef QUIVER_TOOLS_INDEX_BYTE_SOURCE_H_
#define QUIVER_TOOLS_INDEX_BYTE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quiver::index {

// One thread reads; any thread may interrupt and ask how far it is.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  // Fills up to `size` > 0 bytes of `buffer`; 0 at the end. DATA_LOSS if compressed data is broken
  // or ends too early; CANCELLED after Interrupt. Errors name the file.
  virtual absl::StatusOr<size_t> Read(char* buffer, size_t size) = 0;
  // Makes this and every later Read return soon.
  virtual void Interrupt() = 0;
  // Bytes of the file that were read so far, as they are stored.
  virtual uint64_t position() const = 0;
};

// `path` is a file, or "-" for standard input. Data compressed by gzip or zstd is told by its first
// bytes.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenBytes(const std::string& path);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_BYTE_SOURCE_H_
