#include "tests/testing/run_backend.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "gtest/gtest.h"

namespace quiver {

std::vector<std::vector<float>> FinishPass(Pass* pass, int64_t max_us) {
  while (true) {
    const absl::StatusOr<bool> done = pass->Run(max_us);
    EXPECT_TRUE(done.ok()) << done.status();
    if (!done.ok()) return {};
    if (*done) break;
  }
  std::vector<std::vector<float>> vectors;
  for (const absl::StatusOr<EncodedVector>& result : pass->Finish()) {
    EXPECT_TRUE(result.ok()) << result.status();
    vectors.emplace_back(result.ok() ? result->data.size() / sizeof(float) : 0);
    if (result.ok()) std::memcpy(vectors.back().data(), result->data.data(), result->data.size());
  }
  return vectors;
}

std::vector<std::vector<float>> RunTogether(Backend* backend,
                                            const std::vector<std::vector<TokenId>>& sequences,
                                            int dimensions, int64_t max_us) {
  PackedBatch batch;
  for (const std::vector<TokenId>& ids : sequences) batch.Append(ids, {.dimensions = dimensions});
  absl::StatusOr<std::unique_ptr<Pass>> pass = backend->Begin(std::move(batch));
  EXPECT_TRUE(pass.ok()) << pass.status();
  std::vector<std::vector<float>> vectors;
  if (pass.ok()) vectors = FinishPass(pass->get(), max_us);
  vectors.resize(sequences.size());
  return vectors;
}

std::vector<std::vector<float>> RunAlone(Backend* backend,
                                         const std::vector<std::vector<TokenId>>& sequences,
                                         int dimensions) {
  std::vector<std::vector<float>> vectors;
  for (const std::vector<TokenId>& ids : sequences) {
    vectors.push_back(RunTogether(backend, {ids}, dimensions)[0]);
  }
  return vectors;
}

double Cosine(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size() || a.empty()) return 0.0;
  double dot = 0.0, aa = 0.0, bb = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    dot += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return aa > 0 && bb > 0 ? dot / std::sqrt(aa * bb) : 0.0;
}

}  // namespace quiver
