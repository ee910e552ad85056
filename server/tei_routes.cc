#include "server/tei_routes.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "nlohmann/json.hpp"
#include "server/openai_reply.h"

namespace quiver {
namespace {

constexpr char kInputKey[] = "inputs";

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

struct Kind {
  int status;
  const char* word;
};

Kind KindOf(const absl::Status& status, bool unreadable) {
  if (unreadable) return {422, "Validation"};
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return {413, "Validation"};
    case absl::StatusCode::kResourceExhausted:
      return {429, "Overloaded"};
    case absl::StatusCode::kUnavailable:
      return {503, "Unhealthy"};
    default:
      return {424, "Backend"};
  }
}

// `field` is what the message is about, if anything.
HttpResponse ErrorAbout(absl::string_view field, const absl::Status& status, bool unreadable) {
  const Kind kind = KindOf(status, unreadable);
  HttpResponse response;
  response.status = kind.status;
  response.body = Dump({{"error", absl::StrCat(field, field.empty() ? "" : ": ", status.message())},
                        {"error_type", kind.word}});
  response.headers = RetryHeaders(status);
  return response;
}

HttpResponse Error(const absl::Status& status, bool unreadable) {
  return ErrorAbout(ErrorField(status), status, unreadable);
}

HttpResponse Reply(EmbedReply reply, const EmbedJson& request, const std::string&) {
  if (const auto failed = reply.failed_input; failed.has_value()) {
    return ErrorAbout(request.is_list ? absl::StrCat(kInputKey, "[", *failed, "]") : kInputKey,
                      reply.results[*failed].status(), false);
  }
  HttpResponse response;
  for (size_t i = 0; i < reply.results.size(); ++i) {
    response.body += i == 0 ? '[' : ',';
    AppendFloats(reply.results[i]->vector.data, &response.body);
  }
  response.body += ']';
  response.headers = SpaceHeaders(*reply.plan);
  return response;
}

HttpResponse Info(const ServedModel& model, const EmbedRouteOptions& options,
                  const std::string& server_version) {
  const absl::StatusOr<Embedder*> embedder = model.Find("");
  if (!embedder.ok()) return Error(embedder.status(), false);
  const ModelInfo& info = (*embedder)->info();
  nlohmann::json prompts = nlohmann::json::array();
  for (const auto& [name, text] : info.config.prompts) prompts.push_back(name);
  HttpResponse response;
  response.body =
      Dump({{"model_id", info.name},
            {"model_sha", nullptr},
            {"model_dtype", info.weight_type},
            {"model_type", {{"embedding", {{"pooling", PoolingName(info.config.pooling)}}}}},
            {"max_input_length", info.max_input_tokens},
            {"max_batch_tokens", info.backend.max_batch_tokens},
            {"max_client_batch_size", options.max_items_per_request},
            {"auto_truncate", info.default_truncation != Truncation::kNone},
            {"version", server_version},
            // Not asked for there.
            {"architecture", FamilyName(info.config.family)},
            {"quantization", info.config.quantization},
            {"device", info.backend.device},
            {"vector_space", info.space_fingerprint},
            {"dimensions",
             {{"default", info.default_dimensions},
              {"min", info.config.min_dimensions},
              {"max", info.config.hidden_size}}},
            {"prompts", std::move(prompts)},
            {"default_prompt_name", info.default_prompt_name},
            {"accepts_instruction", !info.config.instruction_template.empty()}});
  return response;
}

}  // namespace

void AddTeiRoutes(const EmbedRouteOptions& options, const std::string& server_version,
                  const ServedModel* model, EmbedCalls* calls, RequestObserver* observer,
                  HttpRouter* router) {
  const EmbedForm form = {
      .route = "/embed", .input_key = kInputKey, .reply = Reply, .error = Error};
  AddEmbedRoute(form, options, model, calls, observer, router);
  router->Add("GET", "/info",
              {0,
               [=](HttpRequest, HttpResponder responder) {
                 responder.Send(Info(*model, options, server_version));
               },
               /*needs_key=*/true});
}

}  // namespace quiver
