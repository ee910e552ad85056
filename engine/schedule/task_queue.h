#ifndef QUIVER_ENGINE_SCHEDULE_TASK_QUEUE_H_
#define QUIVER_ENGINE_SCHEDULE_TASK_QUEUE_H_

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/schedule/job.h"

namespace quiver {

// What waits, and when it is due.
struct QueueEntry {
  int64_t due = 0;
  uint64_t number = 0;
  Job* job = nullptr;
  // Of the job when it was pushed.
  int64_t tokens = 0;

  bool Before(const QueueEntry& other) const {
    return due != other.due ? due < other.due : number < other.number;
  }
};

// The first of many entries. A heap of eight children a node: of a long queue, which no cache
// holds, a third of a binary heap's levels are looked at.
class EntryHeap {
 public:
  bool empty() const { return entries_.empty(); }
  const QueueEntry& front() const { return entries_[0]; }
  void Push(const QueueEntry& entry);
  void Pop();
  // Removes those that `unwanted` says yes to, once for each.
  void EraseIf(absl::FunctionRef<bool(const QueueEntry&)> unwanted);

 private:
  static constexpr size_t kChildren = 8;

  // Puts `entry` where it belongs at or below the hole at `at`.
  void SiftDown(size_t at, const QueueEntry& entry);

  std::vector<QueueEntry> entries_;
};

// Jobs in order of their due times, equal ones in order of arrival. A job due no earlier than any
// before it, which is the common case as most tasks have the same time to live, goes in and out in
// constant time; another in O(log n). A job may have several entries, and an entry may outlive its
// job's stay in the queue: such a stale one is for the caller to tell.
class TaskQueue {
 public:
  using Entry = QueueEntry;

  bool empty() const { return sorted_.empty() && returned_.empty() && heap_.empty(); }

  void Push(const Entry& entry);

  // Removes the entries whose job `keep` says no to, once for each.
  void Purge(absl::FunctionRef<bool(Job*)> keep);

  // The first entry. Not empty.
  const Entry& Top() const;
  Entry Pop();

  // Puts an entry back that was popped. Entries popped one after another go back the last first.
  void PutBack(const Entry& entry) {
    tokens_ += entry.tokens;
    returned_.push_front(entry);
  }

  // Tokens of all entries, stale ones too.
  int64_t tokens() const { return tokens_; }
  // A lower bound of the tokens of the entries due at `due` or before.
  int64_t TokensUntil(int64_t due) const;

 private:
  struct SortedEntry {
    Entry entry;
    // Tokens of all that were ever appended, up to and with this one.
    int64_t tokens_until = 0;
  };

  // Appended in order.
  std::deque<SortedEntry> sorted_;
  // Came back from a batch that they did not fit in; in order.
  std::deque<Entry> returned_;
  // Came out of order.
  EntryHeap heap_;
  int64_t tokens_ = 0;
  int64_t appended_tokens_ = 0;
  int64_t popped_tokens_ = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_TASK_QUEUE_H_
