#include "server/rpc_context.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"

namespace quiver {

absl::StatusOr<std::string> Tenant(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find(kTenantKey);
  if (it == metadata.end()) return std::string();
  if (it->second.size() > kMaxTenantBytes) {
    return FieldError(
        absl::StrCat("metadata ", kTenantKey),
        absl::StrCat("must be at most ", kMaxTenantBytes, " bytes; it has ", it->second.size()));
  }
  return std::string(it->second.data(), it->second.size());
}

absl::Time Deadline(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

}  // namespace quiver
