#include "tools/quiver/connection.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "grpcpp/support/client_interceptor.h"

namespace quiver {
namespace {

constexpr char kKeyVariable[] = "QUIVER_API_KEY";
constexpr char kGroup[] = "Server";

// Adds the key to each call's metadata. Not call credentials, which gRPC sends over TLS alone: a
// server that asks for keys may stand behind something that speaks TLS for it.
class KeyInterceptor : public grpc::experimental::Interceptor {
 public:
  explicit KeyInterceptor(std::string authorization) : authorization_(std::move(authorization)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(
            grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->insert({"authorization", authorization_});
    }
    methods->Proceed();
  }

 private:
  const std::string authorization_;
};

class KeyInterceptorFactory : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit KeyInterceptorFactory(const std::string& key)
      : authorization_(absl::StrCat("Bearer ", key)) {}

  grpc::experimental::Interceptor* CreateClientInterceptor(
      grpc::experimental::ClientRpcInfo*) override {
    return new KeyInterceptor(authorization_);
  }

 private:
  const std::string authorization_;
};

absl::StatusOr<std::string> ReadFile(const char* flag, const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (!in || text.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " '", path, "' cannot be read or is empty"));
  }
  return text;
}

// Empty if there is none.
absl::StatusOr<std::string> ApiKey(const std::string& file) {
  std::string key;
  std::string where = absl::StrCat("--api-key-file '", file, "'");
  if (!file.empty()) {
    absl::StatusOr<std::string> text = ReadFile("--api-key-file", file);
    if (!text.ok()) return text.status();
    key = text->substr(0, text->find('\n'));
  } else if (const char* value = std::getenv(kKeyVariable); value != nullptr) {
    key = value;
    where = kKeyVariable;
  }
  key = std::string(absl::StripAsciiWhitespace(key));
  // What HTTP/2 carries; gRPC would end the process for others.
  if (!std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; })) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " must hold a key of printable ASCII characters"));
  }
  if (!file.empty() && key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " must hold a key in its first line"));
  }
  return key;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(
    const ConnectionFlags& flags) {
  if (!flags.tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  if (!flags.tls_ca_file.empty()) {
    absl::StatusOr<std::string> authorities = ReadFile("--tls-ca", flags.tls_ca_file);
    if (!authorities.ok()) return authorities.status();
    options.pem_root_certs = *std::move(authorities);
  }
  return grpc::SslCredentials(options);
}

}  // namespace

void ConnectionFlags::AddTo(CLI::App* command, CLI::Option* server) {
  CLI::Option* encrypted =
      command->add_flag("--tls", tls, "Speak TLS with the server")->needs(server)->group(kGroup);
  command
      ->add_option("--tls-ca", tls_ca_file,
                   "PEM of the authorities its certificate may be from\n(default: the system's)")
      ->type_name("FILE")
      ->needs(encrypted)
      ->group(kGroup);
  command
      ->add_option("--tls-server-name", tls_server_name,
                   "Name that its certificate must have (default: the address')")
      ->type_name("NAME")
      ->needs(encrypted)
      ->group(kGroup);
  command
      ->add_option("--api-key-file", api_key_file,
                   absl::StrCat("File whose first line is the API key to send\n(default: ",
                                kKeyVariable, " of the environment, if it is set)"))
      ->type_name("FILE")
      ->needs(server)
      ->group(kGroup);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectAlone(const std::string& server,
                                                            const ConnectionFlags& flags) {
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = Credentials(flags);
  if (!credentials.ok()) return credentials.status();
  const absl::StatusOr<std::string> key = ApiKey(flags.api_key_file);
  if (!key.ok()) return key.status();
  grpc::ChannelArguments arguments;
  // The server's own limits hold, which it tells.
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A server that is being waited for should be found soon after it comes up.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  if (!flags.tls_server_name.empty()) {
    arguments.SetSslTargetNameOverride(flags.tls_server_name);
  }
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  if (!key->empty()) interceptors.push_back(std::make_unique<KeyInterceptorFactory>(*key));
  return grpc::experimental::CreateCustomChannelWithInterceptors(server, *credentials, arguments,
                                                                 std::move(interceptors));
}

}  // namespace quiver
