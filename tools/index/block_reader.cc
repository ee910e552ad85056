#include "tools/index/block_reader.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace quiver::index {
namespace {

constexpr absl::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

absl::string_view BlockReader::Block() {
  while (begin_ == end_ && !at_end_) {
    begin_ = end_ = 0;
    // The mark may come in pieces.
    do {
      const absl::StatusOr<size_t> count =
          bytes_->Read(buffer_.data() + end_, buffer_.size() - end_);
      if (!count.ok()) status_ = count.status();
      at_end_ = !count.ok() || *count == 0;
      if (!at_end_) end_ += *count;
    } while (!started_ && !at_end_ && end_ < kByteOrderMark.size());
    if (!started_ && absl::StartsWith({buffer_.data(), end_}, kByteOrderMark)) {
      begin_ = kByteOrderMark.size();
    }
    started_ = true;
    if (!status_.ok()) begin_ = end_;
  }
  return {buffer_.data() + begin_, end_ - begin_};
}

double BlockReader::progress() const {
  if (total_bytes_ == 0) return -1;
  return std::min(1.0, static_cast<double>(bytes_->position()) / static_cast<double>(total_bytes_));
}

}  // namespace quiver::index
