// What clients of text-embeddings-inference ask for, so that they can change servers first:
//
//   POST /embed   {"inputs": ...} and the options of embed_json.h; an array of vectors
//   GET  /info    the model and its limits
//
// Errors of /embed are {"error": MESSAGE, "error_type": WORD}, with that server's statuses: 413
// Validation, 422 for a body that cannot be read, 429 Overloaded, 503 Unhealthy, 424 Backend.
#ifndef QUIVER_SERVER_TEI_ROUTES_H_
#define QUIVER_SERVER_TEI_ROUTES_H_

#include <string>

#include "server/embed_call.h"
#include "server/embed_route.h"
#include "server/http_router.h"
#include "server/request_observer.h"
#include "server/served_model.h"

namespace quiver {

// As EmbedRoute's; `server_version` is for /info.
void AddTeiRoutes(const EmbedRouteOptions& options, const std::string& server_version,
                  const ServedModel* model, EmbedCalls* calls, RequestObserver* observer,
                  HttpRouter* router);

}  // namespace quiver

#endif  // QUIVER_SERVER_TEI_ROUTES_H_
