#ifndef QUIVER_TOOLS_BENCH_FAKE_ENGINE_H_
#define QUIVER_TOOLS_BENCH_FAKE_ENGINE_H_

#include <cstdlib>
#include <memory>
#include <utility>

#include "engine/embedder.h"
#include "server/embed_call.h"
#include "server/served_model.h"
#include "server/serving_state.h"
#include "tests/testing/fake_embedder.h"
#include "tests/testing/fake_tokenizer.h"

namespace quiver {

// What services stand on, over an engine that takes no time: "fake-model". Ends the process if it
// cannot be made.
struct FakeEngine {
  explicit FakeEngine(int dimensions) : embedder(Make(dimensions)), model(&state, {}), calls({}) {
    state.Serve(embedder.get());
  }

  std::unique_ptr<Embedder> embedder;
  ServingState state;
  ServedModel model;
  EmbedCalls calls;

 private:
  static std::unique_ptr<Embedder> Make(int dimensions) {
    ModelInfo info = FakeModelInfo();
    info.config.hidden_size = dimensions;
    auto made = Embedder::CreateWith(
        {}, std::move(info), std::make_unique<FakeTokenizer>(),
        std::make_unique<FakeBackend>(FakeBackend::Options{.keep_records = false}), nullptr);
    if (!made.ok()) std::exit(1);
    return *std::move(made);
  }
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_BENCH_FAKE_ENGINE_H_
