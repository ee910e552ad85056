#include "kernels/cpu/pool_encode.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/stored_type.h"
#include "tests/kernels/cpu/guarded_matrix.h"

namespace quiver::cpu {
namespace {

TEST(PoolRowsTest, EachKindTakesTheRowsItNames) {
  std::mt19937 rng(1);
  for (const int64_t rows : {1, 2, 37}) {
    const GuardedMatrix hidden = GuardedMatrix::Random(&rng, rows, 50);
    for (const int64_t dim : {1, 33, 50}) {
      GuardedMatrix out(1, dim);
      PoolRows(PoolKind::kCls, hidden.data(), hidden.stride(), rows, dim, out.data());
      for (int64_t i = 0; i < dim; ++i) EXPECT_EQ(out.at(0, i), hidden.at(0, i));
      PoolRows(PoolKind::kLastToken, hidden.data(), hidden.stride(), rows, dim, out.data());
      for (int64_t i = 0; i < dim; ++i) EXPECT_EQ(out.at(0, i), hidden.at(rows - 1, i));
      PoolRows(PoolKind::kMean, hidden.data(), hidden.stride(), rows, dim, out.data());
      for (int64_t i = 0; i < dim; ++i) {
        double sum = 0;
        for (int64_t r = 0; r < rows; ++r) sum += hidden.at(r, i);
        EXPECT_EQ(out.at(0, i), static_cast<float>(sum / static_cast<double>(rows)));
      }
      out.ExpectWrittenExactly();
    }
  }
}

TEST(FinishVectorTest, LengthBecomesOneEvenOfExtremeValues) {
  for (const float size : {1.0f, 1e-40f, 1e-22f, 1e25f, 3e38f}) {
    std::vector<float> vector = {size, -size, 0.5f * size};
    ASSERT_EQ(FinishVector(vector.data(), 3, true), VectorStatus::kOk);
    EXPECT_NEAR(vector[0], 2.0 / 3, 1e-6);
    EXPECT_NEAR(vector[1], -2.0 / 3, 1e-6);
  }
}

TEST(FinishVectorTest, UnusableVectorsAreNamedAndLeftAlone) {
  std::vector<float> zero = {0.0f, -0.0f};
  EXPECT_EQ(FinishVector(zero.data(), 2, true), VectorStatus::kZeroNorm);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> vector = {3.0f, bad};
    EXPECT_EQ(FinishVector(vector.data(), 2, true), VectorStatus::kNotFinite);
    EXPECT_EQ(vector[0], 3.0f);
  }
}

TEST(EncodeVectorTest, EachEncodingHoldsTheValues) {
  std::mt19937 rng(2);
  for (const int64_t dim : {1, 7, 8, 9, 384}) {
    const GuardedMatrix vector = GuardedMatrix::Random(&rng, 1, dim);
    for (const Encoding encoding : {Encoding::kFloat32, Encoding::kFloat16, Encoding::kBfloat16,
                                    Encoding::kInt8, Encoding::kBinary}) {
      const size_t bytes = EncodedBytes(encoding, dim);
      std::vector<unsigned char> out(bytes + 1, 0xa5);
      float scale = -1;
      ASSERT_EQ(EncodeVector(encoding, vector.data(), dim, out.data(), &scale), VectorStatus::kOk);
      EXPECT_EQ(out[bytes], 0xa5);
      for (int64_t i = 0; i < dim; ++i) {
        const float value = vector.at(0, i);
        uint16_t half;
        switch (encoding) {
          case Encoding::kFloat32:
            EXPECT_EQ(std::memcmp(&out[4 * i], &value, 4), 0);
            break;
          case Encoding::kFloat16:
            std::memcpy(&half, &out[2 * i], 2);
            EXPECT_NEAR(HalfToFloat(half), value, std::fabs(value) / 2048 + 1e-7);
            break;
          case Encoding::kBfloat16:
            std::memcpy(&half, &out[2 * i], 2);
            EXPECT_NEAR(Bfloat16ToFloat(half), value, std::fabs(value) / 256);
            break;
          case Encoding::kInt8:
            EXPECT_NEAR(static_cast<int8_t>(out[i]) * scale, value, 0.501 * scale);
            break;
          case Encoding::kBinary:
            EXPECT_EQ((out[i / 8] >> (7 - i % 8)) & 1, value > 0 ? 1 : 0);
            break;
        }
      }
    }
  }
}

TEST(EncodeVectorTest, OverflowOfTheTypeIsAnError) {
  const float big[] = {1.0f, 7e4f};
  unsigned char out[8];
  float scale;
  EXPECT_EQ(EncodeVector(Encoding::kFloat16, big, 2, out, &scale), VectorStatus::kNotFinite);
  EXPECT_EQ(EncodeVector(Encoding::kBfloat16, big, 2, out, &scale), VectorStatus::kOk);
}

TEST(StoredTypeTest, EveryHalfSurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const bool nan = (half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0;
    EXPECT_EQ(FloatToHalf(HalfToFloat(half)), nan ? half | 0x200 : half);
    const bool bf16_nan = (half & 0x7f80) == 0x7f80 && (half & 0x7f) != 0;
    EXPECT_EQ(FloatToBfloat16(Bfloat16ToFloat(half)), bf16_nan ? half | 0x40 : half);
  }
}

}  // namespace
}  // namespace quiver::cpu
