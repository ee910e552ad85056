// Where exceptions of a backend end.
#ifndef QUIVER_ENGINE_SCHEDULE_GUARDED_H_
#define QUIVER_ENGINE_SCHEDULE_GUARDED_H_

#include <exception>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace quiver {

// What `call` returns, an absl::Status or StatusOr; INTERNAL if it throws.
template <typename Call>
auto Guarded(Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("the backend threw: ", e.what()));
  } catch (...) {
    return absl::InternalError("the backend threw");
  }
}

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_GUARDED_H_
