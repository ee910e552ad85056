#include "engine/schedule/tenant_queue.h"

#include <algorithm>

namespace quiver {

Tenant* TenantQueue::Get(absl::string_view name) {
  std::unique_ptr<Tenant>& slot = tenants_[name];
  if (slot == nullptr) {
    slot = std::make_unique<Tenant>();
    slot->name = std::string(name);
    slot->given = level_;
  }
  return slot.get();
}

const Tenant* TenantQueue::Find(absl::string_view name) const {
  const auto it = tenants_.find(name);
  return it == tenants_.end() ? nullptr : it->second.get();
}

void TenantQueue::Push(Tenant* tenant, const TaskQueue::Entry& entry) {
  ++entries_;
  tenant->queue.Push(entry);
  if (tenant->rank < 0) Activate(tenant);
}

void TenantQueue::Purge(absl::FunctionRef<bool(Job*)> keep) {
  const std::vector<Tenant*> active = heap_;
  entries_ = 0;
  for (Tenant* tenant : active) {
    tenant->queue.Purge([&](Job* job) {
      const bool kept = keep(job);
      entries_ += kept;
      return kept;
    });
    if (tenant->queue.empty()) Deactivate(tenant);
  }
}

bool TenantQueue::Next(TaskQueue::Entry* entry, Tenant** tenant) {
  if (heap_.empty()) return false;
  *tenant = heap_[0];
  *entry = (*tenant)->queue.Pop();
  --entries_;
  if ((*tenant)->queue.empty()) Deactivate(*tenant);
  return true;
}

void TenantQueue::Take(Tenant* tenant, int64_t tokens) {
  level_ = std::max(level_, tenant->given);
  tenant->given += tokens;
  if (tenant->rank >= 0) SiftDown(tenant->rank);
}

void TenantQueue::SetAside(Tenant* tenant, const TaskQueue::Entry& entry, bool hold) {
  aside_.push_back({tenant, entry});
  if (hold && tenant->rank >= 0) Deactivate(tenant);
}

void TenantQueue::EndRound() {
  for (; !aside_.empty(); aside_.pop_back()) {
    Tenant* tenant = aside_.back().tenant;
    tenant->queue.PutBack(aside_.back().entry);
    ++entries_;
    if (tenant->rank < 0) Activate(tenant);
  }
  if (tenants_.size() > 2 * heap_.size() + 64) ForgetIdle();
}

std::vector<const Tenant*> TenantQueue::Largest(int most) const {
  std::vector<const Tenant*> out(std::min(heap_.size(), static_cast<size_t>(most)));
  std::partial_sort_copy(heap_.begin(), heap_.end(), out.begin(), out.end(),
                         [](const Tenant* a, const Tenant* b) { return a->tokens > b->tokens; });
  // What one has may be stale entries alone.
  std::erase_if(out, [](const Tenant* tenant) { return tenant->tasks == 0; });
  return out;
}

int64_t TenantQueue::TokensAhead(const Tenant* tenant, int64_t due) const {
  int64_t own = 0;
  if (tenant != nullptr) {
    // Any stale entry may be among those.
    const int64_t stale = tenant->queue.tokens() - tenant->tokens;
    own = std::max<int64_t>(0, tenant->queue.TokensUntil(due) - std::max<int64_t>(0, stale));
    own = std::min(own, tenant->tokens);
  }
  int64_t sum = own;
  const size_t n = std::min<size_t>(heap_.size(), kTenantsLookedAt);
  for (size_t i = 0; i < n; ++i) {
    if (heap_[i] != tenant) sum += std::min(own, heap_[i]->tokens);
  }
  return sum;
}

void TenantQueue::Activate(Tenant* tenant) {
  // What a tenant did not ask for while it was away is not owed to it.
  tenant->given = std::max(tenant->given, level_);
  heap_.push_back(tenant);
  tenant->rank = static_cast<int>(heap_.size()) - 1;
  SiftUp(tenant->rank);
}

void TenantQueue::Deactivate(Tenant* tenant) {
  const int rank = tenant->rank;
  tenant->rank = -1;
  Tenant* last = heap_.back();
  heap_.pop_back();
  if (last == tenant) return;
  Place(rank, last);
  SiftUp(rank);
  SiftDown(last->rank);
}

void TenantQueue::Place(int rank, Tenant* tenant) {
  heap_[rank] = tenant;
  tenant->rank = rank;
}

void TenantQueue::SiftUp(int rank) {
  Tenant* tenant = heap_[rank];
  while (rank > 0) {
    const int parent = (rank - 1) / 2;
    if (heap_[parent]->given <= tenant->given) break;
    Place(rank, heap_[parent]);
    rank = parent;
  }
  Place(rank, tenant);
}

void TenantQueue::SiftDown(int rank) {
  Tenant* tenant = heap_[rank];
  const int size = static_cast<int>(heap_.size());
  for (;;) {
    int child = 2 * rank + 1;
    if (child >= size) break;
    if (child + 1 < size && heap_[child + 1]->given < heap_[child]->given) ++child;
    if (tenant->given <= heap_[child]->given) break;
    Place(rank, heap_[child]);
    rank = child;
  }
  Place(rank, tenant);
}

// A tenant that was given more than the others keeps that while it is away for a moment; one that
// they have caught up with may as well be new.
void TenantQueue::ForgetIdle() {
  absl::erase_if(tenants_, [this](const auto& item) {
    const Tenant& tenant = *item.second;
    return tenant.rank < 0 && (heap_.empty() || tenant.given <= level_);
  });
}

}  // namespace quiver
