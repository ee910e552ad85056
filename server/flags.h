// Everything an operator can set. Each flag is also an environment variable (QUIVER_ and the name
// in upper snake case) and a key of the configuration file; the command line goes before the
// environment, that before the file, that before the default.
#ifndef QUIVER_SERVER_FLAGS_H_
#define QUIVER_SERVER_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/embedder.h"
#include "server/http_server.h"
#include "server/log.h"

namespace quiver {

struct ServerOptions {
  // Model and batching.
  Embedder::Options embedder;
  // Threads that tokenize large requests; 0 for one for every four cores.
  int tokenizer_threads = 0;
  // Names beside Embedder::Options.name that requests may give.
  std::vector<std::string> aliases;

  std::string host = "127.0.0.1";
  // 0: any free one.
  int grpc_port = 50051;
  int http_port = 30000;
  // Where to write what was bound; empty for nowhere.
  std::string port_file;
  // Host and port are those above.
  HttpServer::Options http;
  // A file for ApiKeys; empty to let everybody in.
  std::string api_keys_file;
  // Both or neither.
  std::string tls_certificate_file;
  std::string tls_key_file;
  absl::Duration grpc_keepalive_time = absl::Minutes(2);

  // Serialized size of one request message.
  int64_t max_message_bytes = int64_t{32} << 20;
  int max_items_per_request = 10'000;
  // Inputs of one stream, and their tokens, that may be unanswered.
  int max_stream_items = 4096;
  int64_t max_stream_tokens = 1 << 20;
  // Calls under way on one gRPC connection.
  int max_calls_per_connection = 1024;
  // How long accepted work may take to finish once the server is told to stop.
  absl::Duration drain_timeout = absl::Seconds(30);

  LogFormat log_format = LogFormat::kText;
  LogLevel log_level = LogLevel::kInfo;
  bool access_log = false;
  // Base of the collector's URLs, for ReadOtlpOptions; empty for what the environment says.
  std::string otlp_endpoint;
  // Of the traces that begin here: the part that is recorded.
  double trace_sample_ratio = 1;
};

// Either options to serve with, or a text to print and an exit code to end with.
struct ParsedFlags {
  std::optional<ServerOptions> options;
  // For stdout if exit_code is 0 (--help, --version), else for stderr.
  std::string message;
  int exit_code = 0;
};

// `args` are those of main without the program's name. Reads the environment and, if one is named,
// the configuration file. A wrong value ends in exit code 2 and a message that says where it stood,
// what is allowed and what was there.
ParsedFlags ParseFlags(absl::Span<const char* const> args);

}  // namespace quiver

#endif  // QUIVER_SERVER_FLAGS_H_
