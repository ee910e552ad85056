#ifndef QUIVER_TOOLS_INDEX_BLOCK_READER_H_
#define QUIVER_TOOLS_INDEX_BLOCK_READER_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tools/index/byte_source.h"

namespace quiver::index {

// Bytes of a source block by block, for what looks for the ends of records. Threads as ByteSource.
class BlockReader {
 public:
  BlockReader(std::unique_ptr<ByteSource> bytes, uint64_t total_bytes)
      : bytes_(std::move(bytes)), total_bytes_(total_bytes) {}

  // What was read and not consumed yet, never empty before the end. A byte order mark at the
  // beginning is left out. Lasts until the next call.
  absl::string_view Block();
  // At most as many bytes as Block() had.
  void Consume(size_t bytes) { begin_ += bytes; }

  void Interrupt() { bytes_->Interrupt(); }
  const absl::Status& status() const { return status_; }
  // As DocumentSource.
  double progress() const;

 private:
  const std::unique_ptr<ByteSource> bytes_;
  // 0 if it is not known.
  const uint64_t total_bytes_;
  std::string buffer_ = std::string(size_t{256} << 10, '\0');
  size_t begin_ = 0, end_ = 0;
  bool started_ = false;
  bool at_end_ = false;
  absl::Status status_;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_BLOCK_READER_H_
