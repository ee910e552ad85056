// The paths that probes and Prometheus ask for:
//
//   /health   200 {"status": "healthy"} while serving, else 503 with "starting" or "draining"
//   /readyz   the same, for those who know it by that name
//   /livez    200 {"status": "alive"} as long as the process answers at all
//   /metrics  Prometheus' text format
//   /debug/scheduler  what waits and what runs now, as JSON; 503 while the model is loaded
#ifndef QUIVER_SERVER_OPERATIONAL_ROUTES_H_
#define QUIVER_SERVER_OPERATIONAL_ROUTES_H_

#include <functional>
#include <string>

#include "server/http_router.h"
#include "server/serving_state.h"

namespace quiver {

// `state` must outlive the router. `scrape` gives the body of /metrics; on the server's threads.
void AddOperationalRoutes(HttpRouter* router, const ServingState* state,
                          std::function<std::string()> scrape);

}  // namespace quiver

#endif  // QUIVER_SERVER_OPERATIONAL_ROUTES_H_
