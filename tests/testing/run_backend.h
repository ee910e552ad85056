// Running token sequences through a backend to its end, and comparing vectors.
#ifndef QUIVER_TESTS_TESTING_RUN_BACKEND_H_
#define QUIVER_TESTS_TESTING_RUN_BACKEND_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "engine/run/backend.h"
#include "engine/types.h"

namespace quiver {

inline constexpr int64_t kWholePass = std::numeric_limits<int64_t>::max();

// Float32 vectors of `sequences`, all in one batch, run in stretches of `max_us`. An error fails
// the test and leaves the vector empty.
std::vector<std::vector<float>> RunTogether(Backend* backend,
                                            const std::vector<std::vector<TokenId>>& sequences,
                                            int dimensions, int64_t max_us = kWholePass);

// The same, each in a batch of its own.
std::vector<std::vector<float>> RunAlone(Backend* backend,
                                         const std::vector<std::vector<TokenId>>& sequences,
                                         int dimensions);

// What is left of a pass that was begun.
std::vector<std::vector<float>> FinishPass(Pass* pass, int64_t max_us = kWholePass);

// Runs one sequence with outputs of several types, lengths and norms through `backend`, whose
// vectors have 64 dimensions or more, and holds each to the first, which is as the model made it.
// `tolerance` is that of a float32 element.
void ExpectOutputsFollowTheirSpecifications(Backend* backend, float tolerance);

// Of vectors of equal, non-zero size; 0 otherwise.
double Cosine(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace quiver

#endif  // QUIVER_TESTS_TESTING_RUN_BACKEND_H_
