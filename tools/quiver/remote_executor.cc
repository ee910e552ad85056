#include "tools/quiver/remote_executor.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/grpcpp.h"
#include "tools/client/channel.h"
#include "tools/client/wire.h"
#include "tools/quiver/embed_stream.h"
#include "tools/quiver/rpc_status.h"
#include "tools/quiver/wire.h"

namespace quiver {
namespace {

// A server that serves answers GetModelInfo at once.
constexpr absl::Duration kAnswerTime = absl::Seconds(10);
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

// Tokenize, call after call; what is at hand goes into one call.
class TokenizeCalls {
 public:
  TokenizeCalls(v1::EmbedService::Stub* stub, const v1::Limits& limits, const WorkOptions& options,
                TokenSink* sink)
      : stub_(stub), budget_(limits), deadline_(options.deadline), sink_(sink) {
    *request_.mutable_options() = client::ToWire(ToClient(options));
  }

  absl::Status Run(InputSource* source) {
    InputItem item;
    for (;;) {
      if (source->WouldWait()) {
        absl::Status status = Call();
        if (status.ok()) status = sink_->Flush();
        if (!status.ok()) return status;
      }
      if (!source->Next(&item)) break;
      if (absl::Status status = Add(std::move(item)); !status.ok()) return status;
    }
    if (absl::Status status = Call(); !status.ok()) return status;
    return source->status();
  }

 private:
  absl::Status Add(InputItem&& item) {
    if (item.text.ok()) {
      const absl::Status fits = budget_.Check(item.text->size());
      if (!fits.ok()) item.text = FromClientStatus(fits);
    }
    const size_t bytes = item.text.ok() ? item.text->size() : 0;
    if (budget_.Full(items_.size(), text_bytes_, bytes)) {
      if (absl::Status status = Call(); !status.ok()) return status;
    }
    if (item.text.ok()) request_.add_inputs()->set_text(*std::move(item.text));
    text_bytes_ += bytes;
    items_.push_back(std::move(item));
    return absl::OkStatus();
  }

  // Puts the results of the items at hand, which are none afterwards.
  absl::Status Call() {
    v1::TokenizeResponse response;
    if (!request_.inputs().empty()) {
      grpc::ClientContext context;
      if (deadline_ != absl::InfiniteFuture()) {
        context.set_deadline(absl::ToChronoTime(deadline_));
      }
      const grpc::Status status = stub_->Tokenize(&context, request_, &response);
      if (!status.ok()) return FromGrpcStatus(status);
      if (response.results_size() != request_.inputs_size()) {
        return absl::InternalError(absl::StrCat("the server sent ", response.results_size(),
                                                " results for ", request_.inputs_size(),
                                                " inputs"));
      }
    }
    int next = 0;
    for (const InputItem& item : items_) {
      const absl::Status put = sink_->Put(
          item, item.text.ok() ? FromWire(response.results(next++)) : item.text.status());
      if (!put.ok()) return put;
    }
    items_.clear();
    request_.clear_inputs();
    text_bytes_ = 0;
    return absl::OkStatus();
  }

  v1::EmbedService::Stub* const stub_;
  const client::MessageBudget budget_;
  const absl::Time deadline_;
  TokenSink* const sink_;
  v1::TokenizeRequest request_;
  // In order; those with a text are the request's inputs.
  std::vector<InputItem> items_;
  size_t text_bytes_ = 0;
};

}  // namespace

RemoteExecutor::RemoteExecutor(Options options) : options_(std::move(options)) {
  connection_ = options_.connection.Read();
  if (!connection_.ok()) return;
  stub_ = v1::EmbedService::NewStub(
      client::NewChannel(options_.server, /*server_name=*/"", *connection_));
}

absl::Status RemoteExecutor::Explain(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kUnavailable) return status;
  return absl::UnavailableError(absl::StrCat(options_.server, ": ", status.message()));
}

absl::StatusOr<v1::ModelInfo> RemoteExecutor::Describe() {
  if (!connection_.ok()) return connection_.status();
  const absl::Time give_up = absl::Now() + options_.wait;
  for (;;) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(std::max(give_up, absl::Now() + kAnswerTime)));
    v1::ModelInfo info;
    const grpc::Status status = stub_->GetModelInfo(&context, {}, &info);
    if (status.ok()) return info;
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE ||
        absl::Now() + kPollInterval > give_up) {
      return Explain(FromGrpcStatus(status));
    }
    absl::SleepFor(kPollInterval);
  }
}

absl::Status RemoteExecutor::Embed(const WorkOptions& options, InputSource* source,
                                   EmbeddingSink* sink) {
  absl::StatusOr<v1::ModelInfo> info = Describe();
  if (!info.ok()) return info.status();
  source->StopAt(options.deadline);
  auto client = Client::Create({.servers = {options_.server}, .connection = *connection_});
  if (!client.ok()) return FromClientStatus(client.status());
  auto stream = (*client)->OpenStream(ToClient(options), {.deadline = options.deadline});
  if (!stream.ok()) return FromClientStatus(stream.status());
  const int dimensions =
      static_cast<int>(options.request.dimensions.value_or(info->dimensions().default_value()));
  return EmbedStream(*std::move(stream)).Run(dimensions, source, sink);
}

absl::Status RemoteExecutor::Tokenize(const WorkOptions& options, InputSource* source,
                                      TokenSink* sink) {
  absl::StatusOr<v1::ModelInfo> info = Describe();
  if (!info.ok()) return info.status();
  if (absl::Status begun = sink->Begin(0); !begun.ok()) return begun;
  source->StopAt(options.deadline);
  return Explain(TokenizeCalls(stub_.get(), info->limits(), options, sink).Run(source));
}

}  // namespace quiver
