#include "tests/testing/fake_embedder.h"

#include <utility>

#include "gtest/gtest.h"
#include "tests/testing/fake_tokenizer.h"

namespace quiver {

ModelInfo FakeModelInfo() {
  ModelInfo info;
  info.name = "fake-model";
  info.weights_fingerprint = "fake weights";
  info.num_parameters = 1000;
  info.weight_bytes = 4000;
  info.weight_type = "float32";
  ModelConfig& config = info.config;
  config.family = Family::kQwen3;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 1;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.vocab_size = FakeTokenizer::kVocabularySize;
  config.max_positions = 1024;
  config.default_max_tokens = 512;
  config.min_dimensions = 8;
  config.prompts = {{"query", "query: "}, {"document", ""}};
  config.instruction_template = "Instruct: {instruction}\nQuery:";
  return info;
}

std::unique_ptr<Embedder> MakeFakeEmbedder(Embedder::Options options,
                                           FakeBackend::Options backend_options,
                                           SchedulerObserver* observer, FakeBackend** backend) {
  auto device = std::make_unique<FakeBackend>(std::move(backend_options));
  FakeBackend* raw = device.get();
  auto embedder =
      Embedder::CreateWith(std::move(options), FakeModelInfo(), std::make_unique<FakeTokenizer>(),
                           std::move(device), observer);
  if (!embedder.ok()) {
    ADD_FAILURE() << embedder.status();
    return nullptr;
  }
  if (backend != nullptr) *backend = raw;
  return *std::move(embedder);
}

}  // namespace quiver
