// The part of OpenAI's HTTP API that is about embeddings:
//
//   POST /v1/embeddings    the body is embed_json.h's, the answer openai_reply.h's
//   GET  /v1/models        the names that the model is served under
//   GET  /v1/models/NAME   one of them, or 404; NAME with or without its slashes escaped
//
// Requests go the way of gRPC's Embed and are told to the same observer under its name. The header
// quiver-tenant is gRPC's metadata of that name. A client that goes away cancels its request.
#ifndef QUIVER_SERVER_OPENAI_ROUTES_H_
#define QUIVER_SERVER_OPENAI_ROUTES_H_

#include <cstdint>

#include "server/embed_call.h"
#include "server/http_router.h"
#include "server/request_observer.h"
#include "server/served_model.h"

namespace quiver {

struct OpenAiOptions {
  int max_items_per_request = 10'000;
  int64_t max_body_bytes = 32 << 20;
};

// `model` and `calls` must outlive the HTTP server and the requests that have begun; so must
// `observer`, which may be null. They end by themselves once the engine has ended its items.
void AddOpenAiRoutes(const OpenAiOptions& options, const ServedModel* model, EmbedCalls* calls,
                     RequestObserver* observer, HttpRouter* router);

}  // namespace quiver

#endif  // QUIVER_SERVER_OPENAI_ROUTES_H_
