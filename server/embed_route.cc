#include "server/embed_route.h"

#include <exception>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "server/observed_request.h"
#include "server/tenant.h"

namespace quiver {
namespace {

// Bodies up to this are read on the HTTP server's thread: well below a millisecond's work.
constexpr size_t kInlineBodyBytes = 64 << 10;

TraceHeaders TraceHeadersOf(const HttpRequest& request) {
  TraceHeaders headers;
  for (const auto& [name, value] : request.headers) {
    if (absl::EqualsIgnoreCase(name, TraceHeaders::kParent)) headers.AddParent(value);
    if (absl::EqualsIgnoreCase(name, TraceHeaders::kState)) headers.AddState(value);
  }
  return headers;
}

// Whether the body is said to be plain JSON, or nothing is said.
bool IsJson(const HttpRequest& request) {
  const absl::string_view coding = request.header("Content-Encoding");
  if (!coding.empty() && !absl::EqualsIgnoreCase(coding, "identity")) return false;
  absl::string_view type = request.header("Content-Type");
  type = absl::StripTrailingAsciiWhitespace(type.substr(0, type.find(';')));
  return type.empty() || absl::EqualsIgnoreCase(type, "application/json");
}

// What goes on for one request. Answers once.
class EmbedExchange : public std::enable_shared_from_this<EmbedExchange> {
 public:
  EmbedExchange(const EmbedForm& form, const EmbedRouteOptions& options, const ServedModel* model,
                EmbedCalls* calls, RequestObserver* observer, HttpRequest http,
                HttpResponder responder)
      : form_(form),
        options_(options),
        model_(*model),
        calls_(*calls),
        http_(std::move(http)),
        observed_(observer, {.rpc = Rpc::kEmbed, .route = form.route, .peer = http_.peer},
                  TraceHeadersOf(http_)),
        responder_(std::move(responder)) {}

  void Run() {
    if (!IsJson(http_)) {
      return End(absl::StatusCode::kInvalidArgument,
                 HttpError(415, "Content-Type must be application/json, without Content-Encoding"));
    }
    if (http_.body.size() <= kInlineBodyBytes) return Start();
    calls_.replies().Add(Lane::kBulk, [self = shared_from_this()] {
      self->Start();
      return WorkPool::kFinished;
    });
  }

 private:
  void Start() {
    absl::Status status;
    try {
      status = TryStart();
    } catch (const std::exception& e) {
      status = absl::InternalError(e.what());
    }
    if (!status.ok()) End(status.code(), form_.error(status, unreadable_));
  }

  // Answers later unless it returns an error.
  absl::Status TryStart() {
    absl::StatusOr<Embedder*> embedder = model_.Find("");
    if (!embedder.ok()) return embedder.status();
    absl::StatusOr<EmbedJson> request =
        ParseEmbedJson(http_.body, form_.input_key, options_.max_items_per_request);
    if (!request.ok()) {
      unreadable_ = true;
      return request.status();
    }
    http_.body = std::string();
    request_ = *std::move(request);
    embedder = model_.Find(request_.model);
    if (!embedder.ok()) return embedder.status();
    const absl::string_view tenant = http_.header(kTenantKey);
    if (absl::Status status = CheckTenant(tenant, "header"); !status.ok()) return status;
    observed_.SetTenant(std::string(tenant));
    absl::StatusOr<RequestPlan> plan = (*embedder)->Plan(request_.options);
    if (!plan.ok()) return plan.status();

    TokenizeJob::Options job;
    job.embedder = *embedder;
    job.plan = std::make_shared<const RequestPlan>(*std::move(plan));
    job.inputs.reserve(request_.inputs.size());
    for (const auto& input : request_.inputs) {
      const std::string* text = std::get_if<std::string>(&input);
      job.inputs.push_back(
          {.content = text != nullptr
                          ? InputRef(absl::string_view(*text))
                          : InputRef(absl::MakeConstSpan(std::get<std::vector<TokenId>>(input)))});
    }
    job.submit.lane = request_.lane;
    job.submit.tenant = std::string(tenant);
    calls_.StartWhole(
        std::move(job),
        {.cancellation = http_.cancellation,
         .max_tokens = options_.max_request_tokens,
         .input_key = form_.input_key},
        observed_.arrival(),
        [self = shared_from_this(), name = (*embedder)->info().name](
            absl::StatusOr<EmbedReply> reply) { self->OnReply(name, std::move(reply)); });
    return absl::OkStatus();
  }

  void OnReply(const std::string& model, absl::StatusOr<EmbedReply> reply) {
    if (!reply.ok()) return End(reply.status().code(), form_.error(reply.status(), false));
    observed_.SetReport(reply->report);
    const absl::StatusCode code = reply->failed_input.has_value()
                                      ? reply->results[*reply->failed_input].status().code()
                                      : absl::StatusCode::kOk;
    End(code, form_.reply(*std::move(reply), request_, model));
  }

  void End(absl::StatusCode code, HttpResponse response) {
    if (const TraceContext& trace = observed_.trace(); trace.valid()) {
      response.headers.emplace_back(kTraceResponse, TraceResponse(trace));
    }
    observed_.End(code, response.status);
    responder_.Send(std::move(response));
  }

  const EmbedForm form_;
  const EmbedRouteOptions options_;
  const ServedModel& model_;
  EmbedCalls& calls_;
  HttpRequest http_;
  ObservedRequest observed_;
  HttpResponder responder_;
  // What the inputs of the call refer to.
  EmbedJson request_;
  // Whether the body was refused.
  bool unreadable_ = false;
};

}  // namespace

void AddEmbedRoute(const EmbedForm& form, const EmbedRouteOptions& options,
                   const ServedModel* model, EmbedCalls* calls, RequestObserver* observer,
                   HttpRouter* router) {
  HttpRouter::Route route;
  route.max_body_bytes = options.max_body_bytes;
  route.needs_key = true;
  route.handler = [=](HttpRequest request, HttpResponder responder) {
    std::make_shared<EmbedExchange>(form, options, model, calls, observer, std::move(request),
                                    std::move(responder))
        ->Run();
  };
  router->Add("POST", std::string(form.route), std::move(route));
}

}  // namespace quiver
