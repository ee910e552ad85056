#include "kernels/cpu/activation.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/cpu/guarded_matrix.h"

namespace quiver::cpu {
namespace {

double Exact(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kRelu:
      return x < 0 ? 0 : x;
  }
  return x;
}

constexpr Activation kAll[] = {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                               Activation::kSilu, Activation::kRelu};

TEST(ActivationTest, ValuesAreWithinTheDocumentedErrorOfTheExactFunction) {
  std::vector<float> inputs = {0.0f, -0.0f, 1e4f, -1e4f, 1e-30f, -1e-30f, 88.5f, -88.5f};
  for (int i = -60000; i <= 60000; ++i) inputs.push_back(static_cast<float>(i) * 2.1e-4f);
  for (float x = 1e-6f; x < 1e4f; x *= 1.01f) inputs.insert(inputs.end(), {x, -x});
  for (const Activation activation : kAll) {
    std::vector<float> values = inputs;
    const auto cols = static_cast<int64_t>(values.size());
    Activate(activation, values.data(), cols, 1, cols, nullptr);
    const double bound =
        activation == Activation::kNone || activation == Activation::kRelu ? 0 : 4e-7;
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_NEAR(values[i], Exact(activation, inputs[i]), bound * std::fabs(inputs[i]) + 1e-45)
          << static_cast<int>(activation) << " of " << inputs[i];
    }
  }
}

TEST(ActivationTest, NanGivesNan) {
  for (const Activation activation : kAll) {
    std::vector<float> values(19, std::numeric_limits<float>::quiet_NaN());
    Activate(activation, values.data(), 19, 1, 19, nullptr);
    for (const float value : values) EXPECT_TRUE(std::isnan(value));
  }
}

TEST(ActivationTest, OnlyTheMatrixIsTouchedAndAnElementDependsOnNoOther) {
  std::mt19937 rng(1);
  ThreadPool pool(2);
  for (const Activation activation : kAll) {
    for (const int64_t cols : {1, 7, 8, 9, 16, 23, 40}) {
      const GuardedMatrix x = GuardedMatrix::Random(&rng, 37, cols);
      GuardedMatrix y = x;
      Activate(activation, y.data(), y.stride(), 37, cols, &pool);
      y.ExpectWrittenExactly();
      for (int64_t r = 0; r < 37; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          float alone = x.at(r, c);
          Activate(activation, &alone, 1, 1, 1, nullptr);
          ASSERT_EQ(y.at(r, c), alone);
        }
      }
    }
  }
}

}  // namespace
}  // namespace quiver::cpu
