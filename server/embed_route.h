// A POST that takes inputs as JSON and answers with their vectors, in the form of one API or
// another.
#ifndef QUIVER_SERVER_EMBED_ROUTE_H_
#define QUIVER_SERVER_EMBED_ROUTE_H_

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/embed_call.h"
#include "server/embed_json.h"
#include "server/http_router.h"
#include "server/request_observer.h"
#include "server/served_model.h"

namespace quiver {

// What an API has of its own.
struct EmbedForm {
  // Its path; of static storage.
  absl::string_view route;
  // Of embed_json.h; of static storage.
  absl::string_view input_key;
  // `model` is the name of the one that ran. An input may have failed: `reply.failed_input`.
  HttpResponse (*reply)(EmbedReply reply, const EmbedJson& request, const std::string& model);
  // Of a request that failed as a whole; `unreadable` if ParseEmbedJson refused its body.
  HttpResponse (*error)(const absl::Status& status, bool unreadable);
};

struct EmbedRouteOptions {
  int max_items_per_request = 10'000;
  int64_t max_body_bytes = 32 << 20;
  // Of a request in all.
  int64_t max_request_tokens = std::numeric_limits<int64_t>::max();
};

// Requests go the way of gRPC's Embed and are told to the same observer under its name. The header
// quiver-tenant is gRPC's metadata of that name. A client that goes away cancels its request.
// `model` and `calls` must outlive the HTTP server and the requests that have begun; so must
// `observer`, which may be null. They end by themselves once the engine has ended its items.
void AddEmbedRoute(const EmbedForm& form, const EmbedRouteOptions& options,
                   const ServedModel* model, EmbedCalls* calls, RequestObserver* observer,
                   HttpRouter* router);

}  // namespace quiver

#endif  // QUIVER_SERVER_EMBED_ROUTE_H_
