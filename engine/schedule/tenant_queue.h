#ifndef QUIVER_ENGINE_SCHEDULE_TENANT_QUEUE_H_
#define QUIVER_ENGINE_SCHEDULE_TENANT_QUEUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "engine/schedule/task_queue.h"

namespace quiver {

// Part of a lane that belongs to one tenant.
struct Tenant {
  std::string name;
  TaskQueue queue;
  // Tokens it was given so far, on a scale that all tenants of the lane share: one that comes late
  // or was away starts where the others are.
  int64_t given = 0;
  // Live jobs in the queue.
  int64_t tokens = 0;
  int64_t tasks = 0;
  // Position in the heap of tenants with work, or -1.
  int rank = -1;
};

// The jobs of a lane, the tenant that was given the least next (start-time fair queueing), in the
// order of TaskQueue within it. Jobs are taken in rounds, one for each batch: any number of Next(),
// each answered by Take(), SetAside() or nothing, then EndRound().
class TenantQueue {
 public:
  // Finds or makes a tenant; it stays until it is out of work.
  Tenant* Get(absl::string_view name);
  // Null if there is none.
  const Tenant* Find(absl::string_view name) const;

  void Push(Tenant* tenant, const TaskQueue::Entry& entry);
  // As TaskQueue::Purge, for all tenants. Not in a round.
  void Purge(absl::FunctionRef<bool(Job*)> keep);

  // Whether Next() would be null.
  bool empty() const { return heap_.empty(); }
  // The job that Next() would give, or null.
  Job* Peek() const { return heap_.empty() ? nullptr : heap_[0]->queue.Top().job; }

  // Removes the next entry and tells its tenant; false if there is none. The job may be done
  // already: that is for the caller to see.
  bool Next(TaskQueue::Entry* entry, Tenant** tenant);
  // The last Next() went into the batch and is charged to its tenant.
  void Take(Tenant* tenant, int64_t tokens);
  // The last Next() did not fit: it goes back at the end of the round. If `hold`, nothing further
  // of this tenant is given out in this round.
  void SetAside(Tenant* tenant, const TaskQueue::Entry& entry, bool hold);
  void EndRound();

  // Tenants with entries.
  int active() const { return static_cast<int>(heap_.size()); }
  // Up to `most` tenants with jobs, those with the most tokens, the most first.
  std::vector<const Tenant*> Largest(int most) const;
  // Of all tenants, stale ones too.
  size_t entries() const { return entries_; }
  // Tokens that go before those of `tenant` due at `due`, were nothing to come later: its own until
  // then, and as many of each other tenant, or all it has. A lower bound; looks at no more than
  // kTenantsLookedAt tenants.
  int64_t TokensAhead(const Tenant* tenant, int64_t due) const;

 private:
  static constexpr int kTenantsLookedAt = 32;

  void Activate(Tenant* tenant);
  void Deactivate(Tenant* tenant);
  void Place(int rank, Tenant* tenant);
  void SiftUp(int rank);
  void SiftDown(int rank);
  void ForgetIdle();

  absl::flat_hash_map<std::string, std::unique_ptr<Tenant>> tenants_;
  // A binary heap of those with entries, the one that was given least at the front.
  std::vector<Tenant*> heap_;
  struct Aside {
    Tenant* tenant;
    TaskQueue::Entry entry;
  };
  std::vector<Aside> aside_;
  size_t entries_ = 0;
  // The `given` of the tenant last served.
  int64_t level_ = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_TENANT_QUEUE_H_
