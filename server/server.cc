#include "server/server.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "server/hub/fetch_model.h"
#include "server/openai_routes.h"
#include "server/operational_routes.h"
#include "server/otlp_client.h"
#include "server/otlp_options.h"
#include "server/process_metrics.h"
#include "server/tei_routes.h"
#include "server/version.h"
#include "server/web_routes.h"

namespace quiver {
namespace {

// HTTP and gRPC get this long for replies that are ready when the engine is drained.
constexpr absl::Duration kLastReplies = absl::Seconds(2);

// Traces get this long to leave once there is no more work.
constexpr absl::Duration kLastSpans = absl::Seconds(2);

// How old a card's metrics may be.
constexpr absl::Duration kGpuSamplePeriod = absl::Seconds(2);

EmbedService::Options ServiceOptions(const ServerOptions& options,
                                     std::shared_ptr<const ApiKeys> api_keys) {
  EmbedService::Options service;
  service.max_items_per_request = options.max_items_per_request;
  service.max_message_bytes = options.max_message_bytes;
  service.max_stream_items = options.max_stream_items;
  service.max_stream_tokens = options.max_stream_tokens;
  service.server_version = kServerVersion;
  service.api_keys = std::move(api_keys);
  return service;
}

// What a device's memory is used for.
std::string MemoryText(const std::vector<MemoryUse>& memory) {
  return absl::StrJoin(memory, ", ", [](std::string* out, const MemoryUse& use) {
    absl::StrAppend(out, use.purpose, " ", use.bytes >> 20, " MiB");
  });
}

EmbedCalls::Options CallOptions(const ServerOptions& options, SchedulerObserver* observer) {
  EmbedCalls::Options calls;
  calls.tokenizer.observer = observer;
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  calls.tokenizer.threads =
      options.tokenizer_threads > 0 ? options.tokenizer_threads : std::max(1, cores / 4);
  return calls;
}

// Null if there is nowhere to export to.
absl::StatusOr<std::unique_ptr<SpanExporter>> MakeExporter(const ServerOptions& options, bool tls,
                                                           Logger* logger) {
  absl::StatusOr<std::optional<OtlpOptions>> otlp = ReadOtlpOptions(options.otlp_endpoint);
  if (!otlp.ok()) return otlp.status();
  if (!otlp->has_value()) return nullptr;
  const std::string collector = (*otlp)->endpoint.authority();
  OtlpEncoder encoder(
      {.resource = (*otlp)->resource, .server_version = kServerVersion, .tls = tls});
  absl::StatusOr<std::unique_ptr<OtlpClient>> client = OtlpClient::Create(**std::move(otlp));
  if (!client.ok()) return client.status();
  logger->Info("tracing", {{"collector", collector}, {"sample_ratio", options.trace_sample_ratio}});
  return std::make_unique<SpanExporter>(SpanExporter::Options(), std::move(encoder),
                                        *std::move(client), logger);
}

// A line when there is something to fetch, and then now and again.
FetchObserver LogFetching(Logger* logger) {
  constexpr absl::Duration kInterval = absl::Seconds(10);
  auto next = std::make_shared<absl::Time>(absl::InfinitePast());
  return [logger, next, kInterval](const FetchProgress& now) {
    const bool is_done = now.files_done == now.files;
    if (absl::Now() < *next && !is_done) return;
    *next = absl::Now() + kInterval;
    logger->Info("fetching the model", {{"files", now.files},
                                        {"files_done", now.files_done},
                                        {"bytes", now.bytes},
                                        {"bytes_done", now.bytes_done}});
  };
}

absl::Status OfModel(const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("--model: ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Create(const ServerOptions& options,
                                                       Logger* logger) {
  const absl::Status model = CheckModel(options.embedder.model_dir);
  if (!model.ok()) return OfModel(model);
  std::shared_ptr<const ApiKeys> api_keys;
  if (!options.api_keys_file.empty()) {
    absl::StatusOr<std::shared_ptr<const ApiKeys>> loaded = ApiKeys::Load(options.api_keys_file);
    if (!loaded.ok()) return loaded.status();
    api_keys = *std::move(loaded);
  }
  std::optional<TlsFiles> tls;
  if (options.tls_certificate_file.empty() != options.tls_key_file.empty()) {
    return absl::InvalidArgumentError("--tls-certificate and --tls-key must be given together");
  }
  if (!options.tls_certificate_file.empty()) {
    absl::StatusOr<TlsFiles> loaded =
        TlsFiles::Load(options.tls_certificate_file, options.tls_key_file, absl::Now());
    if (!loaded.ok()) return loaded.status();
    tls = *std::move(loaded);
  }
  absl::StatusOr<std::unique_ptr<SpanExporter>> exporter =
      MakeExporter(options, tls.has_value(), logger);
  if (!exporter.ok()) return exporter.status();
  std::unique_ptr<Server> server(
      new Server(options, std::move(api_keys), std::move(tls), *std::move(exporter), logger));
  if (absl::Status status = server->Bind(); !status.ok()) return status;
  return server;
}

Server::Server(const ServerOptions& options, std::shared_ptr<const ApiKeys> api_keys,
               std::optional<TlsFiles> tls, std::unique_ptr<SpanExporter> exporter, Logger* logger)
    : options_(options),
      api_keys_(std::move(api_keys)),
      tls_(std::move(tls)),
      logger_(*logger),
      metrics_(GpuMonitor::Start(kGpuSamplePeriod)),
      exporter_(std::move(exporter)),
      tracer_(options.trace_sample_ratio, exporter_.get(), metrics_.request_observer()),
      access_log_(logger, &tracer_),
      in_flight_(FirstObserver()),
      model_(&state_, options.aliases),
      calls_(CallOptions(options, metrics_.scheduler_observer())),
      service_(ServiceOptions(options, api_keys_), &model_, &calls_, &in_flight_) {}

Server::~Server() {
  state_.Drain();
  // Calls end when the engine lets go of their items.
  if (embedder_ != nullptr) embedder_->Drain(absl::InfinitePast());
  http_.reset();
  in_flight_.AwaitNone(absl::InfiniteFuture());
}

RequestObserver* Server::FirstObserver() {
  if (options_.access_log) return &access_log_;
  if (exporter_ != nullptr) return &tracer_;
  return metrics_.request_observer();
}

absl::Status Server::Bind() {
  HttpServer::Options http = options_.http;
  http.host = options_.host;
  http.port = options_.http_port;
  http.api_keys = api_keys_;
  http.tls = tls_;
  if (options_.access_log) {
    http.on_refusal = [this](const HttpRefusal& refusal) { access_log_.OnRefusal(refusal); };
  }
  HttpRouter router;
  AddOperationalRoutes(&router, &state_, [this] {
    return metrics_.Scrape(state_, http_->stats(),
                           exporter_ == nullptr ? SpanExporter::Stats() : exporter_->stats());
  });
  const EmbedRouteOptions embed = {
      .max_items_per_request = options_.max_items_per_request,
      .max_body_bytes = options_.max_message_bytes,
      .max_request_tokens = options_.embedder.scheduler.max_queued_tokens};
  AddOpenAiRoutes(embed, &model_, &calls_, &in_flight_, &router);
  AddTeiRoutes(embed, kServerVersion, &model_, &calls_, &in_flight_, &router);
  AddWebRoutes(kServerVersion, options_.max_items_per_request, &model_, &router);
  absl::StatusOr<std::unique_ptr<HttpServer>> http_server =
      HttpServer::Create(http, std::move(router));
  if (!http_server.ok()) return http_server.status();
  http_ = *std::move(http_server);

  GrpcServer::Options grpc;
  grpc.host = options_.host;
  grpc.port = options_.grpc_port;
  grpc.tls = tls_;
  grpc.max_message_bytes = static_cast<int>(options_.max_message_bytes);
  grpc.max_concurrent_streams = options_.max_calls_per_connection;
  grpc.keepalive_time = options_.grpc_keepalive_time;
  absl::StatusOr<std::unique_ptr<GrpcServer>> grpc_server =
      GrpcServer::Create(grpc, &service_, v1::EmbedService::service_full_name());
  if (!grpc_server.ok()) return grpc_server.status();
  grpc_ = *std::move(grpc_server);

  if (absl::Status status = WritePortFile(); !status.ok()) return status;
  http_->Start();
  logger_.Info("listening", {{"grpc", grpc_->address()},
                             {"http", http_->address()},
                             {"tls", tls_.has_value()},
                             {"api_keys", api_keys_ != nullptr}});
  return absl::OkStatus();
}

absl::Status Server::WritePortFile() const {
  if (options_.port_file.empty()) return absl::OkStatus();
  // Written beside and renamed, so that whoever waits for the file never reads half of it.
  const std::string draft = options_.port_file + ".tmp";
  std::ofstream file(draft);
  file << "grpc=" << grpc_->address() << "\nhttp=" << http_->address() << "\n";
  file.close();
  if (!file || std::rename(draft.c_str(), options_.port_file.c_str()) != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot write --port-file '", options_.port_file, "'"));
  }
  return absl::OkStatus();
}

absl::Status Server::Load(const CreateEmbedder& create) {
  const absl::Time start = absl::Now();
  absl::StatusOr<ResolvedModel> model =
      ResolveModel(options_.embedder.model_dir, LogFetching(&logger_));
  if (!model.ok()) return OfModel(model.status());
  Embedder::Options options = options_.embedder;
  options.model_dir = std::move(model->dir);
  // A snapshot's folder is named by its commit.
  if (options.name.empty()) options.name = std::move(model->name);
  options.scheduler.on_device_lost = [this](const absl::Status& why) { OnDeviceLost(why); };
  logger_.Info("loading", {{"model_dir", options.model_dir}});
  absl::StatusOr<std::unique_ptr<Embedder>> embedder =
      create(std::move(options), metrics_.scheduler_observer());
  if (!embedder.ok()) return embedder.status();
  embedder_ = *std::move(embedder);
  const absl::Duration load_time = absl::Now() - start;
  metrics_.SetModel(embedder_->info(), load_time);
  state_.Serve(embedder_.get());
  grpc_->SetServing(true);
  LogModel(load_time);
  return absl::OkStatus();
}

void Server::OnDeviceLost(const absl::Status& why) {
  logger_.Error("cannot go on", {{"error", why.message()}});
  state_.Drain();
  device_lost_.Set();
}

void Server::LogModel(absl::Duration load_time) const {
  const ModelInfo& info = embedder_->info();
  logger_.Info("serving", {{"model", info.name},
                           {"aliases", absl::StrJoin(options_.aliases, ",")},
                           {"architecture", FamilyName(info.config.family)},
                           {"device", info.backend.device},
                           {"arithmetic", info.backend.arithmetic},
                           {"weight_type", info.weight_type},
                           {"quantization", info.config.quantization},
                           {"dimensions", info.default_dimensions},
                           {"max_input_tokens", info.max_input_tokens},
                           {"max_batch_tokens", info.backend.max_batch_tokens},
                           {"max_queued_tokens", options_.embedder.scheduler.max_queued_tokens},
                           {"fingerprint", info.space_fingerprint},
                           {"weight_bytes", info.weight_bytes},
                           {"resident_bytes", ReadProcessState().resident_bytes},
                           {"load_seconds", load_time},
                           {"grpc", grpc_->address()},
                           {"http", http_->address()}});
  if (!info.backend.memory.empty()) {
    logger_.Info("took the device's memory",
                 {{"for", MemoryText(info.backend.memory)},
                  {"max_second_batch_tokens", info.backend.max_second_batch_tokens}});
  }
}

bool Server::Drain() {
  const absl::Time deadline = absl::Now() + options_.drain_timeout;
  state_.Drain();
  grpc_->SetServing(false);
  bool clean = in_flight_.AwaitNone(deadline);
  if (embedder_ != nullptr) clean &= embedder_->Drain(deadline);
  grpc_->Shutdown(kLastReplies);
  // What is left there is no work: a probe whose request never came whole.
  http_->Stop(absl::Now() + kLastReplies);
  if (exporter_ != nullptr) exporter_->Stop(absl::Now() + kLastSpans);
  return clean;
}

}  // namespace quiver
