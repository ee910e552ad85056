#include "tools/quiver/result_window.h"

#include <utility>

namespace quiver {

bool ResultWindow::HasRoomLocked(size_t bytes) const {
  return entries_.empty() ||
         (entries_.size() < limits_.max_items && bytes_ + bytes <= limits_.max_bytes);
}

bool ResultWindow::FrontReady() const {
  return entries_.empty() ? closed_.has_value() : entries_.front().result.has_value();
}

bool ResultWindow::HasRoom(size_t bytes) const {
  absl::MutexLock lock(&mutex_);
  return closed_.has_value() || HasRoomLocked(bytes);
}

bool ResultWindow::Add(InputItem item, size_t bytes) {
  absl::MutexLock lock(&mutex_);
  const auto may_go_on = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_.has_value() || HasRoomLocked(bytes);
  };
  mutex_.Await(absl::Condition(&may_go_on));
  if (closed_.has_value()) return false;
  bytes_ += bytes;
  entries_.push_back({.item = std::move(item), .result = std::nullopt, .bytes = bytes});
  return true;
}

void ResultWindow::Complete(uint64_t index, absl::StatusOr<Embedding> result) {
  absl::MutexLock lock(&mutex_);
  if (index < first_ || index - first_ >= entries_.size()) return;
  Entry& entry = entries_[index - first_];
  if (!entry.result.has_value()) entry.result = std::move(result);
}

void ResultWindow::Close(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  if (!closed_.has_value()) closed_ = std::move(status);
}

void ResultWindow::Fail(absl::Status status, const absl::Status& pending) {
  Close(std::move(status));
  absl::MutexLock lock(&mutex_);
  for (Entry& entry : entries_) {
    if (!entry.result.has_value()) entry.result = pending;
  }
}

std::optional<ResultWindow::Entry> ResultWindow::TakeFront() {
  if (entries_.empty()) return std::nullopt;
  std::optional<Entry> front = std::move(entries_.front());
  entries_.pop_front();
  ++first_;
  bytes_ -= front->bytes;
  return front;
}

absl::Status ResultWindow::PutAll(EmbeddingSink* sink) {
  for (;;) {
    mutex_.Lock();
    if (!FrontReady()) {
      mutex_.Unlock();
      if (absl::Status flushed = sink->Flush(); !flushed.ok()) return flushed;
      mutex_.LockWhen(absl::Condition(this, &ResultWindow::FrontReady));
    }
    std::optional<Entry> entry = TakeFront();
    absl::Status end = entry.has_value() ? absl::OkStatus() : *closed_;
    mutex_.Unlock();
    if (!entry.has_value()) return end;
    if (absl::Status put = sink->Put(entry->item, *entry->result); !put.ok()) return put;
  }
}

}  // namespace quiver
