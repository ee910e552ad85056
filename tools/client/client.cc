#include "quiver/client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/client/channel.h"
#include "tools/client/embed_call.h"
#include "tools/client/grpc_endpoint.h"
#include "tools/client/rpc_status.h"
#include "tools/client/stream_core.h"
#include "tools/client/wire.h"

namespace quiver::client {
namespace {

absl::Status Check(const ClientOptions& options) {
  if (options.servers.empty()) return FieldError("servers", "must name a server");
  if (options.retry.max_tries < 1) {
    return FieldError("retry.max_tries",
                      absl::StrCat("must be at least 1; it is ", options.retry.max_tries));
  }
  const std::pair<const char*, absl::Duration> times[] = {
      {"retry.first_wait", options.retry.first_wait},
      {"retry.max_wait", options.retry.max_wait},
      {"hedge_after", options.hedge_after},
      {"resolve_interval", options.resolve_interval}};
  for (const auto& [name, value] : times) {
    if (value <= absl::ZeroDuration()) {
      return FieldError(name,
                        absl::StrCat("must be more than 0; it is ", absl::FormatDuration(value)));
    }
  }
  return CheckConnection(options.connection);
}

absl::Status WouldWait() {
  return absl::FailedPreconditionError("in a callback, this would wait for itself");
}

// One Client::GetModelInfo.
struct InfoCall {
  Tries tries;
  std::shared_ptr<RetriedCall> call;
  Promise<absl::StatusOr<ModelInfo>> info;
  std::function<void()> unwatch = [] {};
  bool ended = false;

  void End(Core* core, uint64_t id, const absl::Status& status) {
    if (std::exchange(ended, true)) return;
    if (call != nullptr) call->Cancel();
    unwatch();
    core->End(id);
    if (status.ok()) {
      info.Set(FromWire(*core->info()));
    } else {
      info.Set(status);
    }
  }
};

}  // namespace

absl::StatusOr<std::shared_ptr<Core>> MakeCore(ClientOptions options, EndpointFactory factory,
                                               Lookup lookup) {
  if (absl::Status status = Check(options); !status.ok()) return status;
  absl::StatusOr<std::vector<Address>> addresses = LookUpAll(options.servers, lookup);
  if (!addresses.ok()) return addresses.status();
  return std::make_shared<Core>(std::move(options), std::move(factory), std::move(lookup),
                                *addresses);
}

absl::StatusOr<std::unique_ptr<Client>> Client::Create(ClientOptions options) {
  EndpointFactory factory = GrpcEndpoints(options.connection);
  absl::StatusOr<std::shared_ptr<Core>> core =
      MakeCore(std::move(options), std::move(factory), LookUp);
  if (!core.ok()) return core.status();
  return std::make_unique<Client>(*std::move(core));
}

Client::Client(std::shared_ptr<Core> core) : core_(std::move(core)) {}

Client::~Client() { core_->Shutdown(); }

void Client::EmbedAsync(std::vector<Input> inputs, const EmbedOptions& options,
                        const CallOptions& call, EmbedDone done) {
  auto embed = std::make_shared<EmbedCall>(core_.get(), std::move(inputs), options,
                                           absl::Now() + call.timeout, std::move(done));
  std::optional<Cancellation> cancellation;
  if (call.cancellation != nullptr) cancellation = *call.cancellation;
  core_->loop().Post(
      [embed, cancellation] { embed->Start(cancellation.has_value() ? &*cancellation : nullptr); });
}

absl::StatusOr<EmbedReply> Client::Embed(std::vector<Input> inputs, const EmbedOptions& options,
                                         const CallOptions& call) {
  if (core_->loop().OnLoop()) return WouldWait();
  auto reply = std::make_shared<Promise<absl::StatusOr<EmbedReply>>>();
  EmbedAsync(std::move(inputs), options, call,
             [reply](absl::StatusOr<EmbedReply> answer) { reply->Set(std::move(answer)); });
  return reply->Take();
}

absl::StatusOr<ModelInfo> Client::GetModelInfo(const CallOptions& options) {
  if (core_->loop().OnLoop()) return WouldWait();
  auto call = std::make_shared<InfoCall>();
  core_->loop().Post([core = core_.get(), call, deadline = absl::Now() + options.timeout,
                      cancellation = options.cancellation] {
    auto id = std::make_shared<uint64_t>();
    const auto cancel = [core, call, id] {
      call->End(core, *id, absl::CancelledError("the call was cancelled"));
    };
    *id = core->Begin(cancel);
    if (cancellation != nullptr) call->unwatch = core->Watch(*cancellation, cancel);
    call->call = FetchInfo(core, deadline, &call->tries,
                           [core, call, id](const absl::Status& s) { call->End(core, *id, s); });
  });
  return call->info.Take();
}

absl::StatusOr<std::unique_ptr<EmbedStream>> Client::OpenStream(const EmbedOptions& options,
                                                                const StreamOptions& stream) {
  if (core_->loop().OnLoop()) return WouldWait();
  if (stream.max_tokens_in_flight < 1 || stream.max_items_in_flight < 1 || stream.max_sends < 1) {
    return FieldError("stream",
                      "max_tokens_in_flight, max_items_in_flight and max_sends must be at least 1");
  }
  auto core = std::make_shared<StreamCore>(core_.get(), options, stream);
  const absl::Status opened = core->Open();
  auto result = std::make_unique<EmbedStream>(std::move(core));
  if (!opened.ok()) return opened;
  return result;
}

}  // namespace quiver::client
