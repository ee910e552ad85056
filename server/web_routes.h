// For people and for generators of clients:
//
//   /              a page: the model, its limits, how the server does, a box to compare texts
//   /openapi.json  every path of the server in OpenAPI 3.1, its limits the server's own once the
//                  model is loaded
#ifndef QUIVER_SERVER_WEB_ROUTES_H_
#define QUIVER_SERVER_WEB_ROUTES_H_

#include <string>

#include "server/http_router.h"
#include "server/served_model.h"

namespace quiver {

// Neither asks for a key: the page does so itself for what it shows. `model` must outlive the
// router.
void AddWebRoutes(const std::string& server_version, int max_items_per_request,
                  const ServedModel* model, HttpRouter* router);

}  // namespace quiver

#endif  // QUIVER_SERVER_WEB_ROUTES_H_
