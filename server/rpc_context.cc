#include "server/rpc_context.h"

#include <chrono>

#include "server/tenant.h"

namespace quiver {
namespace {

TraceHeaders HeadersOf(const grpc::CallbackServerContext& context) {
  TraceHeaders headers;
  const auto& metadata = context.client_metadata();
  const auto parents = metadata.equal_range(TraceHeaders::kParent);
  for (auto it = parents.first; it != parents.second; ++it) {
    headers.AddParent({it->second.data(), it->second.size()});
  }
  if (headers.parents != 1) return headers;
  const auto states = metadata.equal_range(TraceHeaders::kState);
  for (auto it = states.first; it != states.second; ++it) {
    headers.AddState({it->second.data(), it->second.size()});
  }
  return headers;
}

}  // namespace

absl::StatusOr<std::string> Tenant(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(kTenantKey);
  if (it == metadata.end()) return std::string();
  std::string tenant(it->second.data(), it->second.size());
  if (absl::Status status = CheckTenant(tenant, "metadata"); !status.ok()) return status;
  return tenant;
}

absl::Status CheckKey(const ApiKeys* keys, const grpc::CallbackServerContext& context) {
  if (keys == nullptr) return absl::OkStatus();
  const auto it = context.client_metadata().find("authorization");
  if (it == context.client_metadata().end()) return keys->Check("");
  return keys->Check({it->second.data(), it->second.size()});
}

ObservedRequest Observe(RequestObserver* observer, Rpc rpc, grpc::CallbackServerContext* context) {
  return ObservedRequest(observer, {.rpc = rpc, .peer = context->peer()}, HeadersOf(*context));
}

void TellTrace(const ObservedRequest& observed, grpc::CallbackServerContext* context) {
  if (!observed.trace().valid()) return;
  context->AddTrailingMetadata(kTraceResponse, TraceResponse(observed.trace()));
}

absl::Time Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

}  // namespace quiver
