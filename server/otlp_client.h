#ifndef QUIVER_SERVER_OTLP_CLIENT_H_
#define QUIVER_SERVER_OTLP_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/otlp_options.h"
#include "server/span_exporter.h"

namespace quiver {

// Posts spans to a collector over HTTP/1.1, on one connection that is kept open. For one thread.
//
// With Boost.Beast, which serves HTTP here already, rather than libcurl: what curl has beyond this
// (proxies, cookies, redirects, other protocols) is of no use towards a collector, and Debian's
// brings some twenty libraries into the image.
class OtlpClient : public SpanSender {
 public:
  // INVALID_ARGUMENT if there is TLS and the system's authorities cannot be read.
  static absl::StatusOr<std::unique_ptr<OtlpClient>> Create(OtlpOptions options);
  ~OtlpClient() override;

  Result Send(const std::string& body, const Deadline& deadline) override;

 private:
  class Impl;

  explicit OtlpClient(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_OTLP_CLIENT_H_
