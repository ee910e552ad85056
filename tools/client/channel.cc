#include "tools/client/channel.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "grpcpp/support/client_interceptor.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

// The server's limit.
constexpr size_t kMaxTenantBytes = 128;

// Adds what goes with every call to its metadata. Not call credentials, which gRPC sends over TLS
// alone: a server that asks for keys may stand behind something that speaks TLS for it.
class MetadataInterceptor : public grpc::experimental::Interceptor {
 public:
  explicit MetadataInterceptor(const ConnectionOptions& options) : options_(options) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      auto* metadata = methods->GetSendInitialMetadata();
      if (!options_.api_key.empty()) {
        metadata->insert({"authorization", absl::StrCat("Bearer ", options_.api_key)});
      }
      if (!options_.tenant.empty()) metadata->insert({"quiver-tenant", options_.tenant});
    }
    methods->Proceed();
  }

 private:
  const ConnectionOptions& options_;
};

class MetadataInterceptorFactory : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit MetadataInterceptorFactory(const ConnectionOptions& options) : options_(options) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new MetadataInterceptor(options_);
  }

 private:
  const ConnectionOptions options_;
};

bool Printable(absl::string_view text, char least) {
  return std::all_of(text.begin(), text.end(), [&](char c) { return c >= least && c <= '~'; });
}

}  // namespace

absl::Status CheckConnection(const ConnectionOptions& options) {
  // What HTTP/2 carries; gRPC would end the process for others.
  if (!Printable(options.api_key, '!')) {
    return FieldError("api_key", "must be printable ASCII characters");
  }
  if (!Printable(options.tenant, ' ') || options.tenant.size() > kMaxTenantBytes) {
    return FieldError("tenant", absl::StrCat("must be at most ", kMaxTenantBytes,
                                             " printable ASCII characters; it has ",
                                             options.tenant.size(), " bytes"));
  }
  if (!options.tls && !options.tls_authorities_pem.empty()) {
    return FieldError("tls_authorities_pem", "must be empty unless tls is set");
  }
  if (!options.tls && !options.tls_server_name.empty()) {
    return FieldError("tls_server_name", "must be empty unless tls is set");
  }
  return absl::OkStatus();
}

std::shared_ptr<grpc::Channel> NewChannel(const std::string& target, const std::string& server_name,
                                          const ConnectionOptions& options) {
  grpc::ChannelArguments arguments;
  // The server's own limits hold, which it tells.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A server that is being waited for should be found soon after it comes up.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    grpc::SslCredentialsOptions ssl;
    ssl.pem_root_certs = options.tls_authorities_pem;
    credentials = grpc::SslCredentials(ssl);
    const std::string& name =
        options.tls_server_name.empty() ? server_name : options.tls_server_name;
    if (!name.empty()) arguments.SetSslTargetNameOverride(name);
  }
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!options.api_key.empty() || !options.tenant.empty()) {
    interceptors.push_back(std::make_unique<MetadataInterceptorFactory>(options));
  }
  return grpc::experimental::CreateCustomChannelWithInterceptors(target, credentials, arguments,
                                                                 std::move(interceptors));
}

}  // namespace quiver::client
