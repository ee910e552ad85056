#ifndef QUIVER_SERVER_OTLP_JSON_H_
#define QUIVER_SERVER_OTLP_JSON_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "server/request_observer.h"

namespace quiver {

// Requests as spans in OTLP's JSON encoding (https://opentelemetry.io/docs/specs/otlp/), with
// OpenTelemetry's names where it has some (rpc.*, http.*, gen_ai.*) and quiver.* for the rest.
//
// A request is a span of kind SERVER over its whole time. Below it stand `tokenize`, over the time
// in which its texts were, and for each batch that some of its items ran in `queue`, the longest
// wait for that batch, and `compute`. Streams have no `tokenize`, as theirs goes on all the time.
class OtlpEncoder {
 public:
  using Attributes = std::vector<std::pair<std::string, std::string>>;

  struct Options {
    // Of the resource, that is this process.
    Attributes resource;
    std::string server_version = {};
    // Whether the doors speak TLS.
    bool tls = false;
  };

  explicit OtlpEncoder(const Options& options);

  static size_t NumSpans(const RequestReport& report);

  // The body of a request to a collector. Thread-safe.
  std::string Encode(absl::Span<const std::unique_ptr<const RequestReport>> requests) const;

 private:
  void AppendRequest(const RequestReport& report, std::string* out) const;

  // What comes before the spans.
  std::string head_;
  bool tls_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_OTLP_JSON_H_
