// The process's inside: both doors, the engine between them, and what is told of it.
#ifndef QUIVER_SERVER_SERVER_H_
#define QUIVER_SERVER_SERVER_H_

#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/embedder.h"
#include "server/access_log.h"
#include "server/api_keys.h"
#include "server/embed_call.h"
#include "server/embed_service.h"
#include "server/event_fd.h"
#include "server/flags.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/request_tracer.h"
#include "server/requests_in_flight.h"
#include "server/served_model.h"
#include "server/serving_state.h"
#include "server/span_exporter.h"
#include "server/tls_files.h"

namespace quiver {

// Create, Load, Drain, in this order and each at most once; the last two take their time and may
// run on any thread. Probes are answered from Create on.
class Server {
 public:
  // Binds both ports, writes the port file, and answers: RPCs are UNAVAILABLE, health is
  // NOT_SERVING. An error names the address or the file. `logger` must outlive the server.
  static absl::StatusOr<std::unique_ptr<Server>> Create(const ServerOptions& options,
                                                        Logger* logger);
  // What is still under way is cut off.
  ~Server();

  // As Embedder::Create.
  using CreateEmbedder = std::function<absl::StatusOr<std::unique_ptr<Embedder>>(
      Embedder::Options options, SchedulerObserver* observer)>;

  // Loads the model and begins to serve. Tests give embedders of their own.
  absl::Status Load(const CreateEmbedder& create = Embedder::Create);

  // A descriptor that can be read from once the device is lost: nothing more will be computed, what
  // was under way is answered with UNAVAILABLE, and probes say that the server is not ready. What
  // is left is to Drain, and to end.
  int device_lost() const { return device_lost_.fd(); }

  // Refuses new work at once and finishes what was accepted, for at most
  // ServerOptions::drain_timeout. Returns whether all of it was finished.
  bool Drain();

 private:
  Server(const ServerOptions& options, std::shared_ptr<const ApiKeys> api_keys,
         std::optional<TlsFiles> tls, std::unique_ptr<SpanExporter> exporter, Logger* logger);

  // Who is told of requests; what is not asked for costs nothing.
  RequestObserver* FirstObserver();
  absl::Status Bind();
  absl::Status WritePortFile() const;
  void OnDeviceLost(const absl::Status& why);
  void LogModel(absl::Duration load_time) const;

  const ServerOptions options_;
  // Null if everybody may call.
  const std::shared_ptr<const ApiKeys> api_keys_;
  const std::optional<TlsFiles> tls_;
  Logger& logger_;
  EventFd device_lost_;
  ServingState state_;
  Metrics metrics_;
  // Null if there are no traces.
  const std::unique_ptr<SpanExporter> exporter_;
  RequestTracer tracer_;
  AccessLog access_log_;
  RequestsInFlight in_flight_;
  std::unique_ptr<Embedder> embedder_;
  ServedModel model_;
  EmbedCalls calls_;
  EmbedService service_;
  std::unique_ptr<GrpcServer> grpc_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_SERVER_H_
