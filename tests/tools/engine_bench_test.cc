#include "tools/quiver/engine_bench.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_shapes.h"
#include "engine/model/random_weights.h"
#include "engine/run/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/quiver/bench_report.h"
#include "tools/quiver/bench_rows.h"

namespace quiver {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(BenchRowsTest, ARowIsSequencesByTokens) {
  const auto rows = ParseBenchRows("2x512,mixed,1x32768");
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 3u);
  EXPECT_THAT((*rows)[0].lengths, ElementsAre(512, 512));
  EXPECT_EQ((*rows)[1].lengths.size(), 2048u);
  EXPECT_EQ((*rows)[2].num_tokens(), 32768);
}

TEST(BenchRowsTest, WhatIsNoRowIsShown) {
  for (const char* text : {"", "64", "64x", "0x5", "5x0", "-1x5", "1x2x3", "64x512,,mixed",
                           "100000x100000", "Mixed"}) {
    const absl::Status status = ParseBenchRows(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_THAT(std::string(ParseBenchRows("1x1,a").status().message()), HasSubstr("'a'"));
}

TEST(BenchRowsTest, MixedLengthsAreLogNormalWithAMedianOf180AndACap) {
  std::vector<int> lengths = MixedLengths(2048);
  EXPECT_EQ(lengths, MixedLengths(2048));
  std::sort(lengths.begin(), lengths.end());
  EXPECT_NEAR(lengths[1024], 180, 9);
  // A deviation of the logarithm of 0.8: the quantile of one deviation is 180 * e^0.8.
  EXPECT_NEAR(lengths[static_cast<size_t>(0.8413 * 2048)], 400, 25);
  EXPECT_GE(lengths.front(), 1);
  EXPECT_LE(lengths.back(), 2048);
}

TEST(BenchRowsTest, BatchesKeepOrderAndLimits) {
  BackendInfo limits;
  limits.max_batch_tokens = 100;
  limits.max_sequence_tokens = 60;
  limits.max_batch_sequences = 3;
  const BenchRow row = {"test", {60, 40, 1, 1, 1, 1, 60}};
  const auto batches = PackRow(row, limits, 50, 8);
  ASSERT_TRUE(batches.ok()) << batches.status();
  std::vector<int> lengths;
  std::set<TokenId> ids;
  for (const PackedBatch& batch : *batches) {
    EXPECT_LE(batch.num_tokens(), 100);
    EXPECT_LE(batch.num_sequences(), 3);
    for (int i = 0; i < batch.num_sequences(); ++i) {
      lengths.push_back(batch.cu_seqlens[i + 1] - batch.cu_seqlens[i]);
    }
    ids.insert(batch.token_ids.begin(), batch.token_ids.end());
  }
  EXPECT_EQ(batches->size(), 3u);
  EXPECT_EQ(lengths, row.lengths);
  EXPECT_EQ(*ids.begin(), 0);
  EXPECT_EQ(*ids.rbegin(), 49);
  EXPECT_EQ(PackRow({"long", {61}}, limits, 50, 8).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// 7.27 GFLOP a token and 8192 * S^2 * 36 a sequence, as counted by hand for the 4B model.
TEST(BenchRowsTest, OperationsAreThoseOfTheLinearLayersAndOfVisiblePairs) {
  const ModelConfig config = *NamedModelShape("qwen3-embedding-4b");
  const double linear = 2.0 * 36 * 100'925'440;
  EXPECT_NEAR(PassFlop(config, {32768}), 32768 * linear + 8192.0 * 32768 * 32769 * 36, 1e6);
  EXPECT_NEAR(PassFlop(config, {1, 1}), 2 * (linear + 8192.0 * 2 * 36), 1);
  const ModelConfig bert = *NamedModelShape("all-minilm-l6-v2");
  EXPECT_NEAR(PassFlop(bert, {10}), 10 * 2.0 * 6 * 12 * 384 * 384 + 4.0 * 384 * 100 * 6, 1);
}

class EngineBenchTest : public testing::Test {
 protected:
  EngineBenchTest() {
    ModelConfig config = *NamedModelShape("all-minilm-l6-v2");
    config.num_layers = 1;
    options_ = {.config = config, .seconds_per_row = 0.02, .seconds_per_turn = 0.01};
    backend_ = *CreateCpuBackend(config, *RandomWeights(config, DType::kBF16, 1, nullptr),
                                 {.num_threads = 1, .max_input_tokens = 64});
  }

  EngineBenchOptions options_;
  std::unique_ptr<Backend> backend_;
};

// Counts its turns and gives figures that are easy to follow.
class FakeCeilings : public DeviceCeilings {
 public:
  absl::StatusOr<CeilingRates> Measure() override {
    ++turns;
    return CeilingRates{{{8192, 1000.0}, {16384, 2000.0}}, 1e-3, 1e-3};
  }
  int turns = 0;
};

TEST_F(EngineBenchTest, ARowRunsForItsTimeAndStandsBesideItsCeilings) {
  FakeCeilings ceilings;
  EngineBench bench(options_, backend_.get(), nullptr, [](absl::string_view) {});
  bench.SetCeilings(&ceilings);
  const RowResult row = bench.Measure({"4x16", {16, 16, 16, 16}});
  ASSERT_TRUE(row.status.ok()) << row.status;
  EXPECT_GE(row.pass_ms.size(), static_cast<size_t>(kMinPasses));
  EXPECT_GE(std::accumulate(row.pass_ms.begin(), row.pass_ms.end(), 0.0), 20.0);
  EXPECT_LE(row.best_ms, row.median_ms);
  EXPECT_NEAR(row.tokens_per_s, 64e3 / row.median_ms, 1e-6);
  EXPECT_GT(ceilings.turns, 0);
  EXPECT_EQ(row.linear_ceiling_tokens_per_s, 2000.0);
  // Either at 1e9 a second.
  const double flop_ms = PassFlop(options_.config, row.lengths) / 1e9 * 1e3;
  const double read_ms = 2.0 * 12 * 384 * 384 / 1e9 * 1e3;
  EXPECT_NEAR(row.floor_ms, std::max(flop_ms, read_ms), 1e-6);
}

// Its passes say of their steps what a test wants.
class TimedBackend : public Backend {
 public:
  TimedBackend(Backend* backend, std::vector<double> step_ms)
      : backend_(backend), step_ms_(std::move(step_ms)) {}
  const BackendInfo& info() const override { return backend_->info(); }
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override {
    absl::StatusOr<std::unique_ptr<Pass>> pass = backend_->Begin(std::move(batch));
    if (!pass.ok()) return pass.status();
    return std::make_unique<TimedPass>(*std::move(pass), step_ms_);
  }

 private:
  class TimedPass : public Pass {
   public:
    TimedPass(std::unique_ptr<Pass> pass, std::vector<double> step_ms)
        : pass_(std::move(pass)), step_ms_(std::move(step_ms)) {}
    absl::StatusOr<bool> Run(int64_t max_us) override { return pass_->Run(max_us); }
    std::vector<double> StepMs() const override { return step_ms_; }
    std::vector<absl::StatusOr<EncodedVector>> Finish() override { return pass_->Finish(); }

   private:
    const std::unique_ptr<Pass> pass_;
    const std::vector<double> step_ms_;
  };

  Backend* const backend_;
  const std::vector<double> step_ms_;
};

TEST_F(EngineBenchTest, ARowTellsTheMedianAndTheLongestOfAllItsSteps) {
  TimedBackend timed(backend_.get(), {0.5, 2.5, 1.25});
  EngineBench bench(options_, &timed, nullptr, [](absl::string_view) {});
  const RowResult row = bench.Measure({"2x16", {16, 16}});
  EXPECT_EQ(row.steps, static_cast<int64_t>(3 * row.pass_ms.size()));
  EXPECT_EQ(row.median_step_ms, 1.25);
  EXPECT_EQ(row.longest_step_ms, 2.5);
  // A CPU's are not timed.
  EngineBench untimed(options_, backend_.get(), nullptr, [](absl::string_view) {});
  EXPECT_EQ(untimed.Measure({"2x16", {16, 16}}).steps, 0);
}

TEST_F(EngineBenchTest, ARowThatIsTooLongFailsAlone) {
  EngineBench bench(options_, backend_.get(), nullptr, [](absl::string_view) {});
  EXPECT_FALSE(bench.Measure({"1x65", {65}}).status.ok());
  EXPECT_TRUE(bench.Measure({"1x64", {64}}).status.ok());
}

TEST_F(EngineBenchTest, ReportsHoldFiguresAndErrors) {
  EngineBench bench(options_, backend_.get(), nullptr, [](absl::string_view) {});
  BenchReport report;
  report.model = "all-minilm-l6-v2";
  report.config = options_.config;
  report.backend = backend_->info();
  report.rows = {bench.Measure({"2x8", {8, 8}}), bench.Measure({"1x65", {65}}),
                 bench.Measure({"mixed", {3, 5}})};
  const nlohmann::ordered_json json = BenchJson(report);
  EXPECT_EQ(json["rows"][0]["tokens"], 16);
  EXPECT_EQ(json["rows"][0]["passes"], json["rows"][0]["pass_ms"].size());
  EXPECT_FALSE(json["rows"][0].contains("floor_ms"));
  EXPECT_FALSE(json["rows"][0].contains("lengths"));
  EXPECT_THAT(json["rows"][1]["error"].get<std::string>(), HasSubstr("at most 64"));
  EXPECT_EQ(json["rows"][2]["lengths"], std::vector<int>({3, 5}));
  const std::string table = BenchTable(report);
  EXPECT_THAT(table, HasSubstr("\n2x8 "));
  EXPECT_THAT(table, HasSubstr("at most 64 tokens"));
}

}  // namespace
}  // namespace quiver
