#include "tools/quiver/connection.h"

#include <cstdlib>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/hub/small_file.h"
#include "tools/client/channel.h"

namespace quiver {
namespace {

constexpr char kKeyVariable[] = "QUIVER_API_KEY";
constexpr char kGroup[] = "Server";

}  // namespace

absl::StatusOr<client::ConnectionOptions> ConnectionFlags::Read() const {
  client::ConnectionOptions options = {.tls = tls, .tls_server_name = tls_server_name};
  if (!tls_ca_file.empty()) {
    absl::StatusOr<std::string> authorities = ReadSmallFile("--tls-ca", tls_ca_file);
    if (!authorities.ok()) return authorities.status();
    options.tls_authorities_pem = *std::move(authorities);
  }
  std::string where = absl::StrCat("--api-key-file '", api_key_file, "'");
  if (!api_key_file.empty()) {
    absl::StatusOr<std::string> text = ReadSmallFile("--api-key-file", api_key_file);
    if (!text.ok()) return text.status();
    options.api_key = text->substr(0, text->find('\n'));
  } else if (const char* value = std::getenv(kKeyVariable); value != nullptr) {
    options.api_key = value;
    where = kKeyVariable;
  }
  options.api_key = std::string(absl::StripAsciiWhitespace(options.api_key));
  // The flags need each other as the options do, so that only the key can be wrong.
  if (!client::CheckConnection(options).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " must hold a key of printable ASCII characters"));
  }
  if (!api_key_file.empty() && options.api_key.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(where, " must hold a key in its first line"));
  }
  return options;
}

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
  const absl::StatusOr<client::ConnectionOptions> options = flags.Read();
  if (!options.ok()) return options.status();
  return client::NewChannel(server, /*server_name=*/"", *options);
}

}  // namespace quiver
