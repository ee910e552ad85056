// Where the process is in its life, as every door sees it.
#ifndef QUIVER_SERVER_SERVING_STATE_H_
#define QUIVER_SERVER_SERVING_STATE_H_

#include <atomic>
#include <cstdint>

#include "engine/embedder.h"

namespace quiver {

// Sockets are bound before the model is loaded, so that probes get an answer from the first moment.
// Phases only go forward. Thread-safe.
class ServingState {
 public:
  enum class Phase : uint8_t {
    // The model is being loaded and warmed up: RPCs are UNAVAILABLE, health is NOT_SERVING.
    kStarting,
    kServing,
    // What was accepted is finished, nothing new is: health is NOT_SERVING, liveness stays good.
    kDraining,
  };

  // `embedder` must outlive every reader of this.
  void Serve(Embedder* embedder) {
    embedder_.store(embedder, std::memory_order_release);
    Phase starting = Phase::kStarting;
    phase_.compare_exchange_strong(starting, Phase::kServing);
  }
  void Drain() { phase_.store(Phase::kDraining); }

  Phase phase() const { return phase_.load(); }
  // Null while starting.
  Embedder* embedder() const { return embedder_.load(std::memory_order_acquire); }

 private:
  std::atomic<Phase> phase_{Phase::kStarting};
  std::atomic<Embedder*> embedder_{nullptr};
};

}  // namespace quiver

#endif  // QUIVER_SERVER_SERVING_STATE_H_
