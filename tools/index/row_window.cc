#include "tools/index/row_window.h"

#include <utility>

namespace quiver::index {

size_t RowWindow::Bytes(const PendingRow& row) const {
  return row.text.size() + row.id.size() + vector_bytes_ + sizeof(PendingRow);
}

bool RowWindow::HasRoom(size_t bytes) const {
  return closed_.has_value() || rows_.empty() ||
         (rows_.size() < limits_.max_rows && bytes_ + bytes <= limits_.max_bytes);
}

std::optional<uint64_t> RowWindow::Add(PendingRow row) {
  const size_t bytes = Bytes(row);
  absl::MutexLock lock(&mutex_);
  const auto room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return HasRoom(bytes); };
  mutex_.Await(absl::Condition(&room));
  if (closed_.has_value()) return std::nullopt;
  bytes_ += bytes;
  rows_.push_back(std::move(row));
  return first_ + rows_.size() - 1;
}

void RowWindow::Complete(uint64_t number, absl::StatusOr<client::Embedding> result) {
  absl::MutexLock lock(&mutex_);
  if (number < first_ || number - first_ >= rows_.size()) return;
  PendingRow& row = rows_[number - first_];
  if (!row.result.has_value()) row.result = std::move(result);
}

void RowWindow::Close(absl::Status status) {
  absl::MutexLock lock(&mutex_);
  if (!closed_.has_value()) closed_ = std::move(status);
}

bool RowWindow::Takeable() const {
  if (rows_.empty()) return closed_.has_value();
  return rows_.front().result.has_value() || (closed_.has_value() && !closed_->ok());
}

bool RowWindow::Take(std::vector<PendingRow>* rows, absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  if (!mutex_.AwaitWithTimeout(absl::Condition(this, &RowWindow::Takeable), timeout)) return true;
  const size_t before = rows->size();
  while (!rows_.empty() && rows_.front().result.has_value()) {
    bytes_ -= Bytes(rows_.front());
    rows->push_back(std::move(rows_.front()));
    rows_.pop_front();
    ++first_;
  }
  return rows->size() > before;
}

absl::Status RowWindow::status() const {
  absl::MutexLock lock(&mutex_);
  return closed_.value_or(absl::OkStatus());
}

}  // namespace quiver::index
