// A whole engine without a model: FakeTokenizer and FakeBackend behind the real facade and
// scheduler.
#ifndef QUIVER_TESTS_TESTING_FAKE_EMBEDDER_H_
#define QUIVER_TESTS_TESTING_FAKE_EMBEDDER_H_

#include <memory>

#include "engine/embedder.h"
#include "tests/testing/fake_backend.h"

namespace quiver {

// "fake-model": hidden size 32, dimensions from 8, inputs of up to 512 tokens (1024 if asked for),
// prompts "query" and "document", an instruction template.
ModelInfo FakeModelInfo();

// `backend_options.max_sequence_tokens` and `max_batch_tokens` must be at least the longest input.
// `backend`, unless null, is set to the backend that the embedder owns. Fails the calling test and
// returns null if the embedder cannot be made.
std::unique_ptr<Embedder> MakeFakeEmbedder(Embedder::Options options = {},
                                           FakeBackend::Options backend_options = {},
                                           SchedulerObserver* observer = nullptr,
                                           FakeBackend** backend = nullptr);

}  // namespace quiver

#endif  // QUIVER_TESTS_TESTING_FAKE_EMBEDDER_H_
