#ifndef QUIVER_ENGINE_SCHEDULE_PREFIX_CACHE_H_
#define QUIVER_ENGINE_SCHEDULE_PREFIX_CACHE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "engine/run/packed_batch.h"
#include "engine/types.h"

namespace quiver {

// What the beginnings of sequences are whose keys and values a backend keeps, such as an
// instruction that many queries share, and in which of its rows. Beginnings are compared by token
// ids; a sequence also reuses the first part of a longer one. Kept are those that Add() names and
// those that were seen repeatedly; where there is no room, the one that was used least recently
// goes. Thread-safe.
class PrefixCache {
  struct Entry;

 public:
  // Fewer tokens than this are not worth it.
  static constexpr int kMinTokens = 8;

  // That a sequence reads or stores a prefix. Its rows stay what they are as long as this exists;
  // one that stores must exist until its pass is complete.
  class Hold {
   public:
    Hold(std::shared_ptr<Entry> entry, int32_t length, bool store);
    ~Hold();
    const PrefixUse& use() const { return use_; }
    // The pass that stored it is complete, and well: others may read it.
    void Stored() const;

   private:
    const std::shared_ptr<Entry> entry_;
    PrefixUse use_;
  };

  // Rows of the backend: BackendInfo::prefix_tokens.
  explicit PrefixCache(int tokens) : tokens_(tokens) {}

  // What a sequence of `ids` is to do, which it is then bound to try; null for nothing. Never all
  // of its tokens are reused.
  std::shared_ptr<const Hold> Find(absl::Span<const TokenId> ids);

  // Makes room for a prefix that will be asked for: whoever runs it first is to store it. Null if
  // it has too few tokens, or too many, or is there already.
  std::shared_ptr<const Hold> Add(absl::Span<const TokenId> ids);

 private:
  enum class State : uint8_t { kEmpty, kStoring, kReady };
  struct Entry {
    std::vector<TokenId> ids;
    int32_t row = 0;
    std::atomic<State> state{State::kEmpty};
    uint64_t last_use = 0;
  };
  // A beginning that may be one of many alike.
  struct Candidate {
    std::vector<TokenId> ids;
    int seen = 0;
  };

  static constexpr size_t kMaxEntries = 64;
  static constexpr size_t kCandidates = 16;
  // Tokens of the longest prefix that is found by itself.
  static constexpr size_t kMaxFound = 256;
  // Sequences that begin alike, until their beginning is kept.
  static constexpr int kRepeats = 4;

  void Watch(absl::Span<const TokenId> ids, size_t known) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Entry> Insert(absl::Span<const TokenId> ids)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Finds rows for so many tokens, before those of `*next`, if others must give way for them; false
  // if they cannot.
  bool MakeRoom(size_t tokens, std::list<std::shared_ptr<Entry>>::iterator* next, int32_t* row)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool EvictOne() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int tokens_;
  absl::Mutex mutex_;
  // In order of their rows.
  std::list<std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  std::array<Candidate, kCandidates> candidates_ ABSL_GUARDED_BY(mutex_);
  size_t next_candidate_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t uses_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_PREFIX_CACHE_H_
