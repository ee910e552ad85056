// The part of OpenAI's HTTP API that is about embeddings:
//
//   POST /v1/embeddings    the body is embed_json.h's, the answer openai_reply.h's
//   GET  /v1/models        the names that the model is served under
//   GET  /v1/models/NAME   one of them, or 404; NAME with or without its slashes escaped
#ifndef QUIVER_SERVER_OPENAI_ROUTES_H_
#define QUIVER_SERVER_OPENAI_ROUTES_H_

#include "server/embed_call.h"
#include "server/embed_route.h"
#include "server/http_router.h"
#include "server/request_observer.h"
#include "server/served_model.h"

namespace quiver {

// As EmbedRoute's.
void AddOpenAiRoutes(const EmbedRouteOptions& options, const ServedModel* model, EmbedCalls* calls,
                     RequestObserver* observer, HttpRouter* router);

}  // namespace quiver

#endif  // QUIVER_SERVER_OPENAI_ROUTES_H_
