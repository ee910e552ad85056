#include "server/embed_service.h"

#include <memory>
#include <vector>

#include "engine/field_error.h"
#include "server/embed_stream.h"
#include "server/rpc_context.h"
#include "server/wire.h"

namespace quiver {
namespace {

class TokenizeCall : public TokenizeJob {
 public:
  using Results = std::vector<absl::StatusOr<TokenizedInput>>;

  TokenizeCall(Options options, absl::AnyInvocable<void(Results, const TokenizeJob&)> done)
      : TokenizeJob(std::move(options)), done_(std::move(done)) {
    results_.resize(size(), absl::UnknownError("no result"));
  }

 private:
  void OnSlice(size_t begin, Results ids) override {
    for (size_t i = 0; i < ids.size(); ++i) results_[begin + i] = std::move(ids[i]);
  }
  void OnEnd() override { done_(std::move(results_), *this); }

  absl::AnyInvocable<void(Results, const TokenizeJob&)> done_;
  Results results_;
};

void FillReply(const v1::EmbedRequest& request, EmbedReply reply, const std::string& model,
               v1::EmbedResponse* out) {
  out->mutable_results()->Reserve(static_cast<int>(reply.results.size()));
  for (size_t i = 0; i < reply.results.size(); ++i) {
    v1::EmbedResult& result = *out->add_results();
    result.set_index(i);
    SetId(request.inputs(static_cast<int>(i)), result.mutable_id());
    SetOutcome(std::move(reply.results[i]), reply.plan->output, i, &result);
  }
  SetUsage(reply.report, out->mutable_usage());
  SetTiming(reply.report, out->mutable_timing());
  SetVectorSpace(*reply.plan, out->mutable_vector_space());
  out->set_model(model);
}

void FillReply(const v1::TokenizeRequest& request, TokenizeCall::Results ids,
               v1::TokenizeResponse* out, RequestReport* report) {
  for (size_t i = 0; i < ids.size(); ++i) {
    v1::TokenizeResult& result = *out->add_results();
    result.set_index(i);
    SetId(request.inputs(static_cast<int>(i)), result.mutable_id());
    if (!ids[i].ok()) {
      report->CountFailure(ids[i].status());
      *result.mutable_error() = ToRpcStatus(ids[i].status(), InputPrefix(i));
      continue;
    }
    ++report->succeeded;
    report->truncated += ids[i]->truncated ? 1 : 0;
    report->tokens += static_cast<int64_t>(ids[i]->ids.size());
    result.set_truncated(ids[i]->truncated);
    result.mutable_token_ids()->mutable_ids()->Add(ids[i]->ids.begin(), ids[i]->ids.end());
  }
}

}  // namespace

grpc::ServerUnaryReactor* EmbedService::Embed(grpc::CallbackServerContext* context,
                                              const grpc::ByteBuffer* request,
                                              grpc::ByteBuffer* response) {
  auto* rpc = new UnaryRpc(observer_, Rpc::kEmbed, context, response);
  rpc->Run<v1::EmbedRequest>(
      CheckKey(options_.api_keys.get(), *context), *request,
      [this, rpc](const v1::EmbedRequest& message, const InvalidStrings& invalid) {
        return StartEmbed(message, invalid, rpc);
      });
  return rpc;
}

grpc::ServerUnaryReactor* EmbedService::Tokenize(grpc::CallbackServerContext* context,
                                                 const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  auto* rpc = new UnaryRpc(observer_, Rpc::kTokenize, context, response);
  rpc->Run<v1::TokenizeRequest>(
      CheckKey(options_.api_keys.get(), *context), *request,
      [this, rpc](const v1::TokenizeRequest& message, const InvalidStrings& invalid) {
        return StartTokenize(message, invalid, rpc);
      });
  return rpc;
}

grpc::ServerUnaryReactor* EmbedService::GetModelInfo(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  auto* rpc = new UnaryRpc(observer_, Rpc::kGetModelInfo, context, response);
  rpc->Run<v1::GetModelInfoRequest>(
      CheckKey(options_.api_keys.get(), *context), *request,
      [this, rpc](const v1::GetModelInfoRequest& message, const InvalidStrings&) {
        return ReplyModelInfo(message, rpc);
      });
  return rpc;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* EmbedService::EmbedStream(
    grpc::CallbackServerContext* context) {
  return StartEmbedStream({.max_items_per_message = options_.max_items_per_request,
                           .max_items_in_flight = options_.max_stream_items,
                           .max_tokens_in_flight = options_.max_stream_tokens,
                           .api_keys = options_.api_keys.get()},
                          &model_, &calls_, observer_, context);
}

absl::StatusOr<TokenizeJob::Options> EmbedService::MakeJob(
    const std::string& model, const v1::EmbedOptions& options,
    const google::protobuf::RepeatedPtrField<v1::Input>& inputs, const InvalidStrings& invalid,
    UnaryRpc* rpc) {
  absl::StatusOr<Embedder*> embedder = model_.Find(model);
  if (!embedder.ok()) return embedder.status();
  if (inputs.empty()) return FieldError("inputs", "must have at least 1; there are 0");
  if (absl::Status status = CheckItemCount("inputs", inputs.size(), options_.max_items_per_request);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<ResolvedOptions> resolved =
      Resolve(**embedder, options, Lane::kInteractive, "options.");
  if (!resolved.ok()) return resolved.status();
  absl::StatusOr<std::string> tenant = Tenant(rpc->context());
  if (!tenant.ok()) return tenant.status();
  rpc->observed().SetTenant(*tenant);
  TokenizeJob::Options job;
  job.embedder = *embedder;
  job.plan = std::move(resolved->plan);
  job.inputs = ToCallInputs(inputs, invalid, (*embedder)->info().vocabulary_size);
  job.submit = {.lane = resolved->lane,
                .deadline = Deadline(rpc->context()),
                .cancellation = rpc->cancellation(),
                .tenant = *std::move(tenant)};
  return job;
}

absl::Status EmbedService::StartEmbed(const v1::EmbedRequest& request,
                                      const InvalidStrings& invalid, UnaryRpc* rpc) {
  absl::StatusOr<TokenizeJob::Options> job =
      MakeJob(request.model(), request.options(), request.inputs(), invalid, rpc);
  if (!job.ok()) return job.status();
  const std::string& name = job->embedder->info().name;
  calls_.Start(*std::move(job), rpc->observed().arrival(),
               [rpc, &request, &name](absl::StatusOr<EmbedReply> reply) {
                 if (!reply.ok()) return rpc->Fail(reply.status());
                 rpc->observed().SetReport(reply->report);
                 auto* response = rpc->NewMessage<v1::EmbedResponse>();
                 FillReply(request, *std::move(reply), name, response);
                 rpc->Reply(*response);
               });
  return absl::OkStatus();
}

absl::Status EmbedService::StartTokenize(const v1::TokenizeRequest& request,
                                         const InvalidStrings& invalid, UnaryRpc* rpc) {
  // The contract ignores what does not change ids.
  v1::EmbedOptions options = request.options();
  options.clear_dimensions();
  options.clear_normalize();
  options.clear_output_type();
  options.clear_lane();
  absl::StatusOr<TokenizeJob::Options> job =
      MakeJob(request.model(), options, request.inputs(), invalid, rpc);
  if (!job.ok()) return job.status();
  calls_.tokenizer().Start(std::make_shared<TokenizeCall>(
      *std::move(job), [rpc, &request](TokenizeCall::Results ids, const TokenizeJob& done) {
        auto* response = rpc->NewMessage<v1::TokenizeResponse>();
        RequestReport report;
        report.tokenize = done.spent();
        report.timeline.tokenize_began = done.began();
        report.timeline.tokenize_ended = done.ended();
        FillReply(request, std::move(ids), response, &report);
        rpc->observed().SetReport(std::move(report));
        rpc->Reply(*response);
      }));
  return absl::OkStatus();
}

absl::Status EmbedService::ReplyModelInfo(const v1::GetModelInfoRequest& request, UnaryRpc* rpc) {
  absl::StatusOr<Embedder*> embedder = model_.Find(request.model());
  if (!embedder.ok()) return embedder.status();
  absl::StatusOr<RequestPlan> plan = (*embedder)->Plan({});
  if (!plan.ok()) return plan.status();
  auto* response = rpc->NewMessage<v1::ModelInfo>();
  SetModelInfo((*embedder)->info(), response);
  SetVectorSpace(*plan, response->mutable_vector_space());
  for (const std::string& alias : model_.aliases()) response->add_aliases(alias);
  response->set_server_version(options_.server_version);
  v1::Limits& limits = *response->mutable_limits();
  limits.set_max_items_per_request(static_cast<uint32_t>(options_.max_items_per_request));
  limits.set_max_message_bytes(static_cast<uint64_t>(options_.max_message_bytes));
  rpc->Reply(*response);
  return absl::OkStatus();
}

}  // namespace quiver
