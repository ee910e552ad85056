#include "engine/schedule/prefix_cache.h"

#include <algorithm>
#include <utility>

namespace quiver {
namespace {

size_t CommonLength(absl::Span<const TokenId> a, absl::Span<const TokenId> b) {
  const size_t n = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < n && a[i] == b[i]) ++i;
  return i;
}

}  // namespace

PrefixCache::Hold::Hold(std::shared_ptr<Entry> entry, int32_t length, bool store)
    : entry_(std::move(entry)), use_{entry_->row, length, store} {}

PrefixCache::Hold::~Hold() {
  if (!use_.store) return;
  // Unless it was stored, whoever comes next tries.
  State storing = State::kStoring;
  entry_->state.compare_exchange_strong(storing, State::kEmpty);
}

void PrefixCache::Hold::Stored() const { entry_->state = State::kReady; }

std::shared_ptr<const PrefixCache::Hold> PrefixCache::Find(absl::Span<const TokenId> ids) {
  if (ids.size() <= kMinTokens) return nullptr;
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<Entry> ready;
  std::shared_ptr<Entry> empty;
  size_t known = 0;
  for (const std::shared_ptr<Entry>& entry : entries_) {
    const size_t common = CommonLength(entry->ids, ids);
    if (common < kMinTokens) continue;
    if (entry->state == State::kReady) {
      if (ready == nullptr || common > known) {
        ready = entry;
        known = common;
      }
    } else if (common == entry->ids.size() && (empty == nullptr || common > empty->ids.size())) {
      empty = entry;
    }
  }
  ++uses_;
  if (empty != nullptr && empty->ids.size() >= known + kMinTokens) {
    empty->last_use = uses_;
    State none = State::kEmpty;
    if (empty->state.compare_exchange_strong(none, State::kStoring)) {
      const auto length = static_cast<int32_t>(empty->ids.size());
      return std::make_shared<const Hold>(std::move(empty), length, /*store=*/true);
    }
  } else {
    Watch(ids, known);
  }
  known = std::min(known, ids.size() - 1);
  if (ready == nullptr || known < kMinTokens) return nullptr;
  ready->last_use = uses_;
  return std::make_shared<const Hold>(std::move(ready), static_cast<int32_t>(known),
                                      /*store=*/false);
}

// Remembers how sequences begin, beyond `known` tokens that are kept already, until one was seen
// often enough.
void PrefixCache::Watch(absl::Span<const TokenId> ids, size_t known) {
  if (ids.size() < known + kMinTokens) return;
  Candidate* best = nullptr;
  size_t length = 0;
  for (Candidate& candidate : candidates_) {
    const size_t common = CommonLength(candidate.ids, ids);
    if (common > length) {
      best = &candidate;
      length = common;
    }
  }
  // What has less in common is another beginning, with a word or two alike.
  if (best == nullptr || length < known + kMinTokens ||
      (best->seen > 1 && length < best->ids.size() / 2)) {
    Candidate& oldest = candidates_[next_candidate_++ % kCandidates];
    const absl::Span<const TokenId> head = ids.subspan(0, kMaxFound);
    oldest.ids.assign(head.begin(), head.end());
    oldest.seen = 1;
    return;
  }
  best->ids.resize(length);
  if (++best->seen < kRepeats) return;
  Insert(best->ids);
  *best = Candidate();
}

std::shared_ptr<const PrefixCache::Hold> PrefixCache::Add(absl::Span<const TokenId> ids) {
  if (ids.size() < kMinTokens) return nullptr;
  absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<Entry>& entry : entries_) {
    if (CommonLength(entry->ids, ids) == ids.size()) return nullptr;
  }
  std::shared_ptr<Entry> entry = Insert(ids);
  if (entry == nullptr) return nullptr;
  entry->state = State::kStoring;
  const auto length = static_cast<int32_t>(ids.size());
  return std::make_shared<const Hold>(std::move(entry), length, /*store=*/true);
}

std::shared_ptr<PrefixCache::Entry> PrefixCache::Insert(absl::Span<const TokenId> ids) {
  std::list<std::shared_ptr<Entry>>::iterator next;
  auto entry = std::make_shared<Entry>();
  if (!MakeRoom(ids.size(), &next, &entry->row)) return nullptr;
  entry->ids.assign(ids.begin(), ids.end());
  entry->last_use = ++uses_;
  entries_.insert(next, entry);
  return entry;
}

bool PrefixCache::MakeRoom(size_t tokens, std::list<std::shared_ptr<Entry>>::iterator* next,
                           int32_t* row) {
  if (tokens > static_cast<size_t>(tokens_)) return false;
  for (;;) {
    size_t end = 0;
    auto it = entries_.begin();
    for (; entries_.size() < kMaxEntries; ++it) {
      const size_t begin =
          it == entries_.end() ? static_cast<size_t>(tokens_) : static_cast<size_t>((*it)->row);
      if (begin - end >= tokens) {
        *next = it;
        *row = static_cast<int32_t>(end);
        return true;
      }
      if (it == entries_.end()) break;
      end = begin + (*it)->ids.size();
    }
    if (!EvictOne()) return false;
  }
}

bool PrefixCache::EvictOne() {
  auto oldest = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    // Nobody but the list has it, and nobody gets it while the lock is held.
    if (it->use_count() > 1) continue;
    if (oldest == entries_.end() || (*it)->last_use < (*oldest)->last_use) oldest = it;
  }
  if (oldest == entries_.end()) return false;
  entries_.erase(oldest);
  return true;
}

}  // namespace quiver
