#include "kernels/cpu/norm.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/rope.h"
#include "tests/kernels/cpu/guarded_matrix.h"

namespace quiver::cpu {
namespace {

constexpr float kEps = 1e-6f;
// Of values of about 1.
constexpr double kTolerance = 5e-6;
constexpr int64_t kDims[] = {1, 2, 8, 15, 16, 17, 33, 64, 100, 384, 1024, 1031};

double RmsFactor(const float* x, int64_t dim) {
  double square_sum = 0;
  for (int64_t i = 0; i < dim; ++i) square_sum += static_cast<double>(x[i]) * x[i];
  return 1 / std::sqrt(square_sum / static_cast<double>(dim) + kEps);
}

std::vector<double> LayerNormOf(const float* x, int64_t dim, const float* weight,
                                const float* bias) {
  double mean = 0;
  for (int64_t i = 0; i < dim; ++i) mean += x[i];
  mean /= static_cast<double>(dim);
  double variance = 0;
  for (int64_t i = 0; i < dim; ++i) variance += (x[i] - mean) * (x[i] - mean);
  variance /= static_cast<double>(dim);
  std::vector<double> y;
  for (int64_t i = 0; i < dim; ++i) {
    y.push_back((x[i] - mean) / std::sqrt(variance + kEps) * weight[i] + bias[i]);
  }
  return y;
}

TEST(NormTest, NormsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  ThreadPool pool(2);
  for (const int64_t dim : kDims) {
    const int64_t rows = 21;
    GuardedMatrix x = GuardedMatrix::Random(&rng, rows, dim);
    // A mean far from zero, as hidden states have.
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < dim; ++i) x.at(r, i) += 3.0f;
    }
    const GuardedMatrix weight = GuardedMatrix::Random(&rng, 1, dim);
    const GuardedMatrix bias = GuardedMatrix::Random(&rng, 1, dim);
    GuardedMatrix rms(rows, dim);
    GuardedMatrix layer(rows, dim);
    RmsNorm(x.data(), x.stride(), rows, dim, weight.data(), kEps, rms.data(), rms.stride(), &pool);
    LayerNorm(x.data(), x.stride(), rows, dim, weight.data(), bias.data(), kEps, layer.data(),
              layer.stride(), &pool);
    rms.ExpectWrittenExactly();
    layer.ExpectWrittenExactly();
    for (int64_t r = 0; r < rows; ++r) {
      const double factor = RmsFactor(x.row(r), dim);
      const std::vector<double> expected = LayerNormOf(x.row(r), dim, weight.data(), bias.data());
      for (int64_t i = 0; i < dim; ++i) {
        ASSERT_NEAR(rms.at(r, i), x.at(r, i) * factor * weight.at(0, i), kTolerance) << dim;
        // Two close values have a small deviation, in which the mean's rounding weighs more.
        ASSERT_NEAR(layer.at(r, i), expected[i], dim == 2 ? 1e-3 : 4 * kTolerance) << dim;
      }
    }
  }
}

TEST(NormTest, ARowIsBitIdenticalAloneAndInPlaceAndOnTwoThreads) {
  std::mt19937 rng(2);
  ThreadPool pool(2);
  for (const int64_t dim : kDims) {
    const int64_t rows = 40;
    const GuardedMatrix x = GuardedMatrix::Random(&rng, rows, dim);
    const GuardedMatrix weight = GuardedMatrix::Random(&rng, 1, dim);
    const GuardedMatrix bias = GuardedMatrix::Random(&rng, 1, dim);
    GuardedMatrix rms = x;
    GuardedMatrix layer = x;
    RmsNorm(rms.data(), rms.stride(), rows, dim, weight.data(), kEps, rms.data(), rms.stride(),
            &pool);
    LayerNorm(layer.data(), layer.stride(), rows, dim, weight.data(), bias.data(), kEps,
              layer.data(), layer.stride(), &pool);
    for (int64_t r = 0; r < rows; ++r) {
      GuardedMatrix alone(1, dim);
      RmsNorm(x.row(r), x.stride(), 1, dim, weight.data(), kEps, alone.data(), 1, nullptr);
      ASSERT_EQ(alone.RowBits(0), rms.RowBits(r));
      LayerNorm(x.row(r), x.stride(), 1, dim, weight.data(), bias.data(), kEps, alone.data(), 1,
                nullptr);
      ASSERT_EQ(alone.RowBits(0), layer.RowBits(r));
    }
  }
}

TEST(NormTest, AddingFirstIsTheSameAsAddingBefore) {
  std::mt19937 rng(3);
  for (const int64_t dim : kDims) {
    const GuardedMatrix x = GuardedMatrix::Random(&rng, 5, dim);
    const GuardedMatrix before = GuardedMatrix::Random(&rng, 5, dim);
    const GuardedMatrix weight = GuardedMatrix::Random(&rng, 1, dim);
    const GuardedMatrix bias = GuardedMatrix::Random(&rng, 1, dim);
    GuardedMatrix added = before;
    for (int64_t r = 0; r < 5; ++r) {
      for (int64_t i = 0; i < dim; ++i) added.at(r, i) += x.at(r, i);
    }
    GuardedMatrix expected(5, dim);
    GuardedMatrix y(5, dim);
    GuardedMatrix sum = before;
    RmsNorm(added.data(), added.stride(), 5, dim, weight.data(), kEps, expected.data(),
            expected.stride(), nullptr);
    AddRmsNorm(sum.data(), sum.stride(), x.data(), x.stride(), 5, dim, weight.data(), kEps,
               y.data(), y.stride(), nullptr);
    EXPECT_EQ(sum.Bits(), added.Bits());
    EXPECT_EQ(y.Bits(), expected.Bits());
    y.ExpectWrittenExactly();
    sum = before;
    LayerNorm(added.data(), added.stride(), 5, dim, weight.data(), bias.data(), kEps,
              expected.data(), expected.stride(), nullptr);
    AddLayerNorm(sum.data(), sum.stride(), x.data(), x.stride(), 5, dim, weight.data(), bias.data(),
                 kEps, y.data(), y.stride(), nullptr);
    EXPECT_EQ(sum.Bits(), added.Bits());
    EXPECT_EQ(y.Bits(), expected.Bits());
  }
}

TEST(RopeTest, HeadsAreNormalizedAndRotated) {
  std::mt19937 rng(4);
  ThreadPool pool(2);
  const double theta = 1e6;
  for (const int head_dim : {8, 24, 32, 64, 72, 128}) {
    const RopeTable table(300, head_dim, theta, &pool);
    const int64_t rows = 19, heads = 3, half = head_dim / 2;
    std::vector<int32_t> positions;
    for (int64_t t = 0; t < rows; ++t) positions.push_back(static_cast<int32_t>(rng() % 300));
    const GuardedMatrix weight = GuardedMatrix::Random(&rng, 1, head_dim);
    for (const bool normalize : {true, false}) {
      const GuardedMatrix x = GuardedMatrix::Random(&rng, rows, heads * head_dim);
      GuardedMatrix y = x;
      QkNormRope(y.data(), y.stride(), rows, static_cast<int>(heads),
                 normalize ? weight.data() : nullptr, kEps, positions.data(), table, &pool);
      y.ExpectWrittenExactly();
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t h = 0; h < heads; ++h) {
          const float* in = x.row(t) + h * head_dim;
          const float* out = y.row(t) + h * head_dim;
          const double factor = normalize ? RmsFactor(in, head_dim) : 1.0;
          const auto value = [&](int64_t i) {
            return in[i] * factor * (normalize ? weight.at(0, i) : 1.0f);
          };
          for (int64_t i = 0; i < half; ++i) {
            const double angle =
                positions[t] * std::pow(theta, -2.0 * static_cast<double>(i) / head_dim);
            // Angles are rounded to F32, at 300 by up to 3e-5.
            ASSERT_NEAR(out[i], value(i) * std::cos(angle) - value(i + half) * std::sin(angle),
                        2e-4);
            ASSERT_NEAR(out[i + half],
                        value(i + half) * std::cos(angle) + value(i) * std::sin(angle), 2e-4);
          }
        }
      }
    }
  }
}

TEST(EmbeddingTest, RowsOfTheTablesAreSummedExactly) {
  std::mt19937 rng(5);
  ThreadPool pool(2);
  for (const int64_t dim : {1, 30, 384, 700}) {
    const GuardedMatrix words = GuardedMatrix::Random(&rng, 50, dim, 0);
    const GuardedMatrix places = GuardedMatrix::Random(&rng, 9, dim, 0);
    std::vector<uint16_t> types;
    for (int64_t i = 0; i < 2 * dim; ++i) types.push_back(FloatToBfloat16(words.at(0, i % dim)));
    const std::vector<int32_t> ids = {0, 49, 7, 7};
    const std::vector<int32_t> positions = {8, 0, 1, 2};
    GuardedMatrix out(4, dim);
    Embed({StoredType::kF32, words.data()}, {StoredType::kBF16, types.data()},
          {StoredType::kF32, places.data()}, ids.data(), positions.data(), 4, dim, out.data(),
          out.stride(), &pool);
    out.ExpectWrittenExactly();
    for (size_t t = 0; t < 4; ++t) {
      for (int64_t i = 0; i < dim; ++i) {
        const float expected =
            words.at(ids[t], i) + Bfloat16ToFloat(types[i]) + places.at(positions[t], i);
        ASSERT_EQ(out.at(static_cast<int64_t>(t), i), expected);
      }
    }
  }
}

}  // namespace
}  // namespace quiver::cpu
