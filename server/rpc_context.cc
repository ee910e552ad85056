#include "server/rpc_context.h"

#include <chrono>

#include "server/tenant.h"

namespace quiver {

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

absl::Time Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

}  // namespace quiver
