#include "engine/schedule/task_queue.h"

#include <algorithm>

namespace quiver {
namespace {

// std::push_heap keeps the greatest at the front.
constexpr auto kLater = [](const TaskQueue::Entry& a, const TaskQueue::Entry& b) {
  return b.Before(a);
};

}  // namespace

void TaskQueue::Push(const Entry& entry) {
  ++entry.job->entries;
  tokens_ += entry.tokens;
  if (sorted_.empty() || sorted_.back().entry.Before(entry)) {
    appended_tokens_ += entry.tokens;
    sorted_.push_back({entry, appended_tokens_});
  } else {
    heap_.push_back(entry);
    std::push_heap(heap_.begin(), heap_.end(), kLater);
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
    std::pop_heap(heap_.begin(), heap_.end(), kLater);
    heap_.pop_back();
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
  std::erase_if(heap_, unwanted);
  std::make_heap(heap_.begin(), heap_.end(), kLater);
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
