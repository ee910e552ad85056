#ifndef QUIVER_SERVER_TENANT_H_
#define QUIVER_SERVER_TENANT_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/field_error.h"

namespace quiver {

// The gRPC metadata key and HTTP header under which a client says on whose behalf it calls, and the
// bytes of its value.
inline constexpr char kTenantKey[] = "quiver-tenant";
inline constexpr size_t kMaxTenantBytes = 128;

// INVALID_ARGUMENT if `tenant` is too long. `where` it stood: "metadata", "header".
inline absl::Status CheckTenant(absl::string_view tenant, absl::string_view where) {
  if (tenant.size() <= kMaxTenantBytes) return absl::OkStatus();
  return FieldError(
      absl::StrCat(where, " ", kTenantKey),
      absl::StrCat("must be at most ", kMaxTenantBytes, " bytes; it has ", tenant.size()));
}

}  // namespace quiver

#endif  // QUIVER_SERVER_TENANT_H_
