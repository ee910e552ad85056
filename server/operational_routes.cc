#include "server/operational_routes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/metrics.h"
#include "server/scheduler_json.h"

namespace quiver {
namespace {

HttpResponse StatusResponse(int status, absl::string_view word) {
  HttpResponse response;
  response.status = status;
  response.body = absl::StrCat("{\"status\": \"", word, "\"}");
  response.headers = {{"Cache-Control", "no-store"}};
  return response;
}

HttpResponse Readiness(ServingState::Phase phase) {
  switch (phase) {
    case ServingState::Phase::kStarting:
      return StatusResponse(503, "starting");
    case ServingState::Phase::kServing:
      return StatusResponse(200, "healthy");
    case ServingState::Phase::kDraining:
      break;
  }
  return StatusResponse(503, "draining");
}

HttpResponse SchedulerState(const Embedder* embedder) {
  if (embedder == nullptr) return StatusResponse(503, "starting");
  HttpResponse response;
  response.body = SchedulerJson(embedder->Snapshot());
  response.headers = {{"Cache-Control", "no-store"}};
  return response;
}

}  // namespace

void AddOperationalRoutes(HttpRouter* router, const ServingState* state,
                          std::function<std::string()> scrape) {
  const auto readiness = [state](HttpRequest, HttpResponder responder) {
    responder.Send(Readiness(state->phase()));
  };
  router->Add("GET", "/health", {0, readiness});
  router->Add("GET", "/readyz", {0, readiness});
  router->Add("GET", "/livez", {0, [](HttpRequest, HttpResponder responder) {
                                  responder.Send(StatusResponse(200, "alive"));
                                }});
  router->Add("GET", "/metrics",
              {0, [scrape = std::move(scrape)](HttpRequest, HttpResponder responder) {
                 HttpResponse response;
                 response.content_type = Metrics::kContentType;
                 response.body = scrape();
                 responder.Send(std::move(response));
               }});
  // It names tenants.
  router->Add("GET", "/debug/scheduler",
              {0,
               [state](HttpRequest, HttpResponder responder) {
                 responder.Send(SchedulerState(state->embedder()));
               },
               /*needs_key=*/true});
}

}  // namespace quiver
