#include "engine/schedule/task_queue.h"

#include <algorithm>

namespace quiver {

void EntryHeap::Push(const QueueEntry& entry) {
  size_t at = entries_.size();
  entries_.push_back(entry);
  while (at > 0) {
    const size_t parent = (at - 1) / kChildren;
    if (!entry.Before(entries_[parent])) break;
    entries_[at] = entries_[parent];
    at = parent;
  }
  entries_[at] = entry;
}

void EntryHeap::Pop() {
  const QueueEntry last = entries_.back();
  entries_.pop_back();
  if (!entries_.empty()) SiftDown(0, last);
}

void EntryHeap::SiftDown(size_t at, const QueueEntry& entry) {
  const size_t size = entries_.size();
  for (size_t child; (child = at * kChildren + 1) < size;) {
    const size_t end = std::min(size, child + kChildren);
    size_t first = child;
    while (++child < end) {
      if (entries_[child].Before(entries_[first])) first = child;
    }
    if (!entries_[first].Before(entry)) break;
    entries_[at] = entries_[first];
    at = first;
  }
  entries_[at] = entry;
}

void EntryHeap::EraseIf(absl::FunctionRef<bool(const QueueEntry&)> unwanted) {
  std::erase_if(entries_, unwanted);
  for (size_t at = entries_.size(); at-- > 0;) SiftDown(at, QueueEntry(entries_[at]));
}

void TaskQueue::Push(const Entry& entry) {
  ++entry.job->entries;
  tokens_ += entry.tokens;
  if (sorted_.empty() || sorted_.back().entry.Before(entry)) {
    appended_tokens_ += entry.tokens;
    sorted_.push_back({entry, appended_tokens_});
  } else {
    heap_.Push(entry);
  }
}

const TaskQueue::Entry& TaskQueue::Top() const {
  const Entry* first = nullptr;
  if (!returned_.empty()) first = &returned_.front();
  if (!sorted_.empty() && (first == nullptr || sorted_.front().entry.Before(*first))) {
    first = &sorted_.front().entry;
  }
  if (!heap_.empty() && (first == nullptr || heap_.front().Before(*first))) first = &heap_.front();
  return *first;
}

TaskQueue::Entry TaskQueue::Pop() {
  const Entry* top = &Top();
  const Entry out = *top;
  if (!returned_.empty() && top == &returned_.front()) {
    returned_.pop_front();
  } else if (!sorted_.empty() && top == &sorted_.front().entry) {
    popped_tokens_ = sorted_.front().tokens_until;
    sorted_.pop_front();
  } else {
    heap_.Pop();
  }
  tokens_ -= out.tokens;
  return out;
}

void TaskQueue::Purge(absl::FunctionRef<bool(Job*)> keep) {
  const auto unwanted = [&](const Entry& entry) {
    if (keep(entry.job)) return false;
    tokens_ -= entry.tokens;
    return true;
  };
  std::erase_if(sorted_, [&](const SortedEntry& sorted) { return unwanted(sorted.entry); });
  std::erase_if(returned_, unwanted);
  heap_.EraseIf(unwanted);
  popped_tokens_ = appended_tokens_ = 0;
  for (SortedEntry& sorted : sorted_) {
    sorted.tokens_until = appended_tokens_ += sorted.entry.tokens;
  }
}

int64_t TaskQueue::TokensUntil(int64_t due) const {
  if (sorted_.empty() || sorted_.front().entry.due > due) return 0;
  if (sorted_.back().entry.due <= due) return appended_tokens_ - popped_tokens_;
  const auto after = std::upper_bound(
      sorted_.begin(), sorted_.end(), due,
      [](int64_t limit, const SortedEntry& entry) { return limit < entry.entry.due; });
  return (after - 1)->tokens_until - popped_tokens_;
}

}  // namespace quiver
