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

void ExpectOutputsFollowTheirSpecifications(Backend* backend, float tolerance) {
  const std::vector<TokenId> ids = {5, 6, 7, 8};
  PackedBatch batch;
  batch.Append(ids, {.dimensions = 64, .normalize = false});
  batch.Append(ids, {.dimensions = 40, .normalize = true});
  batch.Append(ids, {.dimensions = 40, .normalize = false, .type = OutputType::kFloat16});
  batch.Append(ids, {.dimensions = 40, .type = OutputType::kInt8});
  batch.Append(ids, {.dimensions = 33, .type = OutputType::kBinary});
  auto pass = backend->Begin(std::move(batch));
  ASSERT_TRUE(pass.ok()) << pass.status();
  ASSERT_TRUE(*(*pass)->Run(kWholePass));
  const auto results = (*pass)->Finish();
  ASSERT_EQ(results.size(), 5u);
  for (const auto& result : results) ASSERT_TRUE(result.ok()) << result.status();
  const size_t bytes[] = {256, 160, 80, 40, 5};
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(results[i]->data.size(), bytes[i]) << i;

  float raw[64], cut[40];
  std::memcpy(raw, results[0]->data.data(), sizeof(raw));
  std::memcpy(cut, results[1]->data.data(), sizeof(cut));
  double norm = 0;
  for (int i = 0; i < 40; ++i) norm += double{raw[i]} * raw[i];
  for (int i = 0; i < 40; ++i) EXPECT_NEAR(cut[i], raw[i] / std::sqrt(norm), tolerance);
  for (int i = 0; i < 40; ++i) {
    const auto element = static_cast<int8_t>(results[3]->data[i]);
    EXPECT_NEAR(element * results[3]->scale, cut[i], results[3]->scale / 2 + 1e-6f);
  }
  EXPECT_EQ((results[4]->data[0] & 0x80) != 0, raw[0] > 0);
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
