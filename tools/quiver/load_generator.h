#ifndef QUIVER_TOOLS_QUIVER_LOAD_GENERATOR_H_
#define QUIVER_TOOLS_QUIVER_LOAD_GENERATOR_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "tools/quiver/connection.h"
#include "tools/quiver/load_recorder.h"
#include "tools/quiver/workload.h"

namespace quiver {

// Inputs of a workload, no two alike unless they are very short, so that the server computes each:
// random token ids, which it does not tokenize; random words; or lines of a file.
class InputMaker {
 public:
  // `lines`, which may be null or empty, are what texts are taken from.
  InputMaker(const Workload& workload, uint32_t vocabulary_size, uint64_t seed,
             std::shared_ptr<const std::vector<std::string>> lines);

  void Make(v1::Input* input);

 private:
  const bool text_;
  const std::shared_ptr<const std::vector<std::string>> lines_;
  std::mt19937_64 random_;
  std::uniform_int_distribution<int> length_;
  std::uniform_int_distribution<uint32_t> id_;
  // What all inputs begin with.
  std::vector<uint32_t> shared_;
};

// Sends the requests of one workload. Start once, then Finish once.
class LoadSource {
 public:
  // What all sources of a test have in common.
  struct Plan {
    LoadClock::time_point start;
    LoadWindow window;
    uint32_t vocabulary_size = 1;
    uint64_t seed = 1;
    // What texts are taken from, or null.
    std::shared_ptr<const std::vector<std::string>> lines;
  };

  virtual ~LoadSource() = default;
  virtual void Start() = 0;
  // Returns when every request sent has been answered; from `give_up` on they are cancelled.
  virtual LoadResult Finish(LoadClock::time_point give_up) = 0;
};

// Embed after Embed, from one thread; answers are counted on gRPC's. `stubs`, one for each
// connection, take turns.
std::unique_ptr<LoadSource> MakeUnaryLoad(const Workload& workload, const LoadSource::Plan& plan,
                                          std::vector<v1::EmbedService::Stub*> stubs);
// One EmbedStream, a thread for each direction.
std::unique_ptr<LoadSource> MakeStreamLoad(const Workload& workload, const LoadSource::Plan& plan,
                                           v1::EmbedService::Stub* stub);

struct LoadOptions {
  // HOST:PORT.
  std::string server;
  ConnectionFlags connection = {};
  // Connections that the Embed calls of all workloads share.
  int connections = 4;
  // Time before the window that counts, and the window's length.
  absl::Duration warm_up = absl::Seconds(2);
  absl::Duration duration = absl::Seconds(10);
  // How long answers are waited for afterwards.
  absl::Duration patience = absl::Seconds(30);
  uint64_t seed = 1;
  // What workloads of texts send, at random; null or empty for words.
  std::shared_ptr<const std::vector<std::string>> lines = nullptr;
};

// Sends all workloads side by side: their results, in the same order. INVALID_ARGUMENT for inputs
// longer than the server takes (`info` is its own word), UNAVAILABLE if there is no connection.
absl::StatusOr<std::vector<LoadResult>> RunLoad(const LoadOptions& options,
                                                const v1::ModelInfo& info,
                                                const std::vector<Workload>& workloads);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_LOAD_GENERATOR_H_
