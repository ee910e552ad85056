#include "engine/schedule/cost_model.h"

#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using Work = CostModel::Work;

double Truth(const Work& work) {
  return 500 + 2.0 * static_cast<double>(work.tokens) + 0.004 * static_cast<double>(work.pairs);
}

// Of `n` sequences of a random length.
Work RandomWork(std::mt19937& random) {
  const int64_t length = 1 + static_cast<int64_t>(random() % 2000);
  const int64_t n = 1 + static_cast<int64_t>(random() % 16);
  return {n * length, n * length * length};
}

// Of what has seen many passes of every size.
CostModel Learned() {
  std::mt19937 random(1);
  CostModel model;
  for (int i = 0; i < 50; ++i) {
    const Work work = RandomWork(random);
    model.Observe(work, Truth(work));
  }
  return model;
}

TEST(CostModelTest, KnowsNothingAtFirst) {
  EXPECT_EQ(CostModel().PredictUs({1000, 1'000'000}), 0);
  EXPECT_EQ(CostModel().fixed_us(), 0);
}

TEST(CostModelTest, LearnsTheThreeCoefficients) {
  const CostModel model = Learned();
  EXPECT_NEAR(model.fixed_us(), 500, 5);
  EXPECT_NEAR(model.token_us(), 2.0, 0.02);
  EXPECT_NEAR(model.pair_us(), 0.004, 0.00004);
}

TEST(CostModelTest, PartsOfAFullBatchShareItsFixedTime) {
  const CostModel model = Learned();
  const Work part = {32, 32 * 32};
  const Work full = {64 * 32, 64 * 32 * 32};
  EXPECT_NEAR(64 * model.PredictShareUs(part, full.tokens), model.PredictUs(full), 1e-6);
  EXPECT_NEAR(model.PredictShareUs(full, full.tokens), model.PredictUs(full), 1e-9);
  EXPECT_NEAR(model.PredictShareUs(full, 100), model.PredictUs(full), 1e-9);
}

TEST(CostModelTest, SmallPassesDoNotMakeAFullOneLookCheap) {
  CostModel model;
  for (const int64_t tokens : {8, 64, 256, 1024}) {
    model.Observe({tokens, 0}, 500 + 2.0 * static_cast<double>(tokens), /*keep=*/true);
  }
  const double share = model.PredictShareUs({32, 0}, 4096);
  // As on a device that reads its weights anyway, however few tokens there are.
  for (int i = 0; i < 500; ++i) model.Observe({i % 2 == 0 ? 16 : 48, 0}, 550);
  EXPECT_LT(model.token_us(), 1.9);
  EXPECT_GE(model.PredictShareUs({32, 0}, 4096), share);
}

TEST(CostModelTest, LearnsThroughNoise) {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> noise(0.9, 1.1);
  CostModel model;
  for (int i = 0; i < 200; ++i) {
    const Work work = RandomWork(random);
    model.Observe(work, Truth(work) * noise(random));
  }
  for (int i = 0; i < 50; ++i) {
    const Work work = RandomWork(random);
    EXPECT_NEAR(model.PredictUs(work) / Truth(work), 1, 0.1);
  }
}

TEST(CostModelTest, PassesAllAlikeArePredictedAsTheyWere) {
  CostModel model;
  for (int i = 0; i < 100; ++i) model.Observe({512, 512 * 512}, 3000);
  EXPECT_NEAR(model.PredictUs({512, 512 * 512}), 3000, 1);
}

TEST(CostModelTest, CoefficientsAreNeverNegative) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    CostModel model;
    for (int i = 0; i < 20; ++i) {
      model.Observe(RandomWork(random), 1 + static_cast<double>(random() % 100'000));
      EXPECT_GE(model.fixed_us(), 0);
      EXPECT_GE(model.token_us(), 0);
      EXPECT_GE(model.pair_us(), 0);
      EXPECT_GT(model.PredictUs({1, 1}) + model.PredictUs({4096, 4096 * 4096}), 0);
    }
  }
}

TEST(CostModelTest, FollowsADeviceThatBecomesSlower) {
  std::mt19937 random(4);
  CostModel model;
  for (int i = 0; i < 100; ++i) {
    const Work work = RandomWork(random);
    model.Observe(work, Truth(work));
  }
  for (int i = 0; i < 300; ++i) {
    const Work work = RandomWork(random);
    model.Observe(work, 2 * Truth(work));
  }
  EXPECT_NEAR(model.token_us(), 4.0, 0.1);
}

TEST(CostModelTest, FollowsADeviceThatBecomesMuchFaster) {
  std::mt19937 random(5);
  CostModel model;
  for (int i = 0; i < 100; ++i) {
    const Work work = RandomWork(random);
    model.Observe(work, Truth(work));
  }
  for (int i = 0; i < 1000; ++i) {
    const Work work = RandomWork(random);
    model.Observe(work, 0.05 * Truth(work));
  }
  const Work work{4096, 4096 * 512};
  EXPECT_NEAR(model.PredictUs(work) / Truth(work), 0.05, 0.005);
}

TEST(CostModelTest, KeptPassesAreNotForgotten) {
  CostModel model = LearnedCost(100, 1, 0.01);
  // A thousand small passes say nothing of attention.
  for (int i = 0; i < 1000; ++i) model.Observe({8, 8}, 108);
  EXPECT_NEAR(model.pair_us(), 0.01, 0.001);
  EXPECT_NEAR(model.fixed_us(), 100, 5);
}

TEST(CostModelTest, OnePassOutOfLineMovesItLittle) {
  for (const double factor : {1000.0, 10.0, 0.1, 0.001}) {
    std::mt19937 random(6);
    CostModel model = LearnedCost(500, 2, 0.004);
    for (int i = 0; i < 100; ++i) {
      const Work work = RandomWork(random);
      model.Observe(work, Truth(work));
    }
    const Work odd{1000, 1'000'000};
    model.Observe(odd, factor * Truth(odd));
    for (int i = 0; i < 20; ++i) {
      const Work work = RandomWork(random);
      EXPECT_NEAR(model.PredictUs(work) / Truth(work), 1, 0.3) << factor;
    }
  }
}

TEST(CostModelTest, NonsenseIsIgnored) {
  CostModel model = LearnedCost(100, 1);
  const double before = model.PredictUs({1000, 1000});
  for (const bool keep : {false, true}) {
    model.Observe({1000, 1000}, 0, keep);
    model.Observe({1000, 1000}, -5, keep);
    model.Observe({0, 0}, 5, keep);
    model.Observe({1000, 1000}, std::numeric_limits<double>::infinity(), keep);
    model.Observe({1000, 1000}, std::numeric_limits<double>::quiet_NaN(), keep);
  }
  EXPECT_EQ(model.PredictUs({1000, 1000}), before);
}

}  // namespace
}  // namespace quiver
