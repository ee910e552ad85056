#include "server/openai_routes.h"

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "server/embed_json.h"
#include "server/observed_request.h"
#include "server/openai_reply.h"
#include "server/tenant.h"

namespace quiver {
namespace {

constexpr char kModelsPath[] = "/v1/models/";

// Bodies up to this are read on the HTTP server's thread: well below a millisecond's work.
constexpr size_t kInlineBodyBytes = 64 << 10;

// What goes on for one POST /v1/embeddings. Answers once.
class EmbedExchange : public std::enable_shared_from_this<EmbedExchange> {
 public:
  EmbedExchange(const OpenAiOptions& options, const ServedModel* model, EmbedCalls* calls,
                RequestObserver* observer, HttpRequest http, HttpResponder responder)
      : options_(options),
        model_(*model),
        calls_(*calls),
        http_(std::move(http)),
        observed_(observer, Rpc::kEmbed, http_.peer),
        responder_(std::move(responder)) {}

  void Run() {
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
    if (!status.ok()) End(status.code(), OpenAiError(status));
  }

  // Answers later unless it returns an error.
  absl::Status TryStart() {
    absl::StatusOr<Embedder*> embedder = model_.Find("");
    if (!embedder.ok()) return embedder.status();
    absl::StatusOr<EmbedJson> request = ParseEmbedJson(http_.body, options_.max_items_per_request);
    if (!request.ok()) return request.status();
    http_.body = std::string();
    request_ = *std::move(request);
    embedder = model_.Find(request_.model);
    if (!embedder.ok()) return embedder.status();
    const absl::string_view tenant = http_.header(kTenantKey);
    if (absl::Status status = CheckTenant(tenant, "header"); !status.ok()) return status;
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
    job.submit = {
        .lane = request_.lane, .cancellation = http_.cancellation, .tenant = std::string(tenant)};
    calls_.Start(std::move(job), observed_.arrival(),
                 [self = shared_from_this(), name = (*embedder)->info().name](
                     absl::StatusOr<EmbedReply> reply) { self->OnReply(name, std::move(reply)); });
    return absl::OkStatus();
  }

  void OnReply(const std::string& model, absl::StatusOr<EmbedReply> reply) {
    if (!reply.ok()) return End(reply.status().code(), OpenAiError(reply.status()));
    observed_.SetReport(reply->report);
    End(absl::StatusCode::kOk,
        OpenAiReply(*std::move(reply),
                    {.model = model, .base64 = request_.base64, .is_list = request_.is_list}));
  }

  void End(absl::StatusCode code, HttpResponse response) {
    observed_.End(code);
    responder_.Send(std::move(response));
  }

  const OpenAiOptions options_;
  const ServedModel& model_;
  EmbedCalls& calls_;
  HttpRequest http_;
  ObservedRequest observed_;
  HttpResponder responder_;
  // What the inputs of the call refer to.
  EmbedJson request_;
};

// 415 unless the body says that it is plain JSON, or nothing.
bool IsJson(const HttpRequest& request) {
  const absl::string_view coding = request.header("Content-Encoding");
  if (!coding.empty() && !absl::EqualsIgnoreCase(coding, "identity")) return false;
  absl::string_view type = request.header("Content-Type");
  type = absl::StripTrailingAsciiWhitespace(type.substr(0, type.find(';')));
  return type.empty() || absl::EqualsIgnoreCase(type, "application/json");
}

nlohmann::json ModelJson(const std::string& name) {
  return {{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "quiver"}};
}

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void ListModels(const ServedModel& model, HttpResponder responder) {
  const absl::StatusOr<Embedder*> embedder = model.Find("");
  if (!embedder.ok()) return responder.Send(OpenAiError(embedder.status()));
  nlohmann::json data = nlohmann::json::array({ModelJson((*embedder)->info().name)});
  for (const std::string& alias : model.aliases()) data.push_back(ModelJson(alias));
  responder.Send({.body = Dump({{"object", "list"}, {"data", std::move(data)}})});
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Escapes that are none stay as they are: no name will match.
std::string Unescape(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 &&
        HexValue(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexValue(text[i + 1]) * 16 + HexValue(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

void ShowModel(const ServedModel& model, absl::string_view path, HttpResponder responder) {
  const std::string name = Unescape(absl::StripPrefix(path, kModelsPath));
  const absl::StatusOr<Embedder*> embedder = model.Find(name);
  if (!embedder.ok()) return responder.Send(OpenAiError(embedder.status()));
  responder.Send({.body = Dump(ModelJson(name))});
}

}  // namespace

void AddOpenAiRoutes(const OpenAiOptions& options, const ServedModel* model, EmbedCalls* calls,
                     RequestObserver* observer, HttpRouter* router) {
  router->Add("POST", "/v1/embeddings",
              {options.max_body_bytes,
               [=](HttpRequest request, HttpResponder responder) {
                 if (!IsJson(request)) {
                   return responder.Send(HttpError(
                       415, "Content-Type must be application/json, without Content-Encoding"));
                 }
                 std::make_shared<EmbedExchange>(options, model, calls, observer,
                                                 std::move(request), std::move(responder))
                     ->Run();
               },
               /*needs_key=*/true});
  router->Add(
      "GET", "/v1/models",
      {0, [=](HttpRequest, HttpResponder responder) { ListModels(*model, std::move(responder)); },
       /*needs_key=*/true});
  router->Add("GET", absl::StrCat(kModelsPath, "*"),
              {0,
               [=](HttpRequest request, HttpResponder responder) {
                 ShowModel(*model, request.path, std::move(responder));
               },
               /*needs_key=*/true});
}

}  // namespace quiver
