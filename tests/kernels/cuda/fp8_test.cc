// Rows quantized to FP8 on the device, and FP8 matrices expanded, against plain arithmetic. Skipped
// where there is no device.
#include "kernels/cuda/fp8.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/cuda/device_memory.h"
#include "tests/kernels/cuda/fp8_value.h"

namespace quiver {
namespace {

using Fp8Test = DeviceTest;

TEST_F(Fp8Test, RowsBecomeTheNearestCodesTimesTheirScale) {
  std::mt19937 rng(1);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    for (const int64_t cols : {int64_t{8}, int64_t{384}, int64_t{2560}, int64_t{9728}}) {
      constexpr int64_t kRows = 5;
      HalfMatrix x = HalfMatrix::Random(&rng, kRows, cols, type);
      for (int64_t c = 0; c < cols; ++c) x.Set(3, c, 0);
      x.Upload();
      const DeviceBuffer<uint8_t> codes(std::vector<uint8_t>(kRows * cols + 16, 0x7f));
      const DeviceBuffer<float> scales(std::vector<float>(kRows + 1, -1));
      ASSERT_CUDA(QuantizeRows(type, x.device(), x.stride(), kRows, cols, codes.get(), scales.get(),
                               nullptr));
      ASSERT_CUDA(cudaDeviceSynchronize());
      const std::vector<uint8_t> got = codes.ToHost();
      const std::vector<float> scale = scales.ToHost();
      EXPECT_EQ(scale[kRows], -1);
      for (int64_t i = kRows * cols; i < kRows * cols + 16; ++i) {
        EXPECT_EQ(got[static_cast<size_t>(i)], 0x7f);
      }
      for (int64_t r = 0; r < kRows; ++r) {
        float most = 0;
        for (int64_t c = 0; c < cols; ++c) most = std::max(most, std::abs(x.at(r, c)));
        if (r != 3) {
          EXPECT_NEAR(scale[static_cast<size_t>(r)], most / 448, most * 1e-9);
        }
        for (int64_t c = 0; c < cols; ++c) {
          const float value = x.at(r, c);
          const float s = scale[static_cast<size_t>(r)];
          // Half a unit in the last place of 4 bits, or of the smallest numbers.
          const float tolerance = std::max(std::abs(value) / 16, s * 0x1p-10f) * 1.001f;
          ASSERT_NEAR(Fp8Value(got[static_cast<size_t>(r * cols + c)]) * s, value, tolerance)
              << cols << ": row " << r << " column " << c;
        }
      }
    }
  }
}

TEST_F(Fp8Test, RowThatIsNotFiniteIsSpoiledAlone) {
  std::mt19937 rng(2);
  constexpr int64_t kCols = 512;
  HalfMatrix x = HalfMatrix::Random(&rng, 3, kCols, HalfType::kBf16);
  x.Set(0, 100, std::numeric_limits<float>::quiet_NaN());
  x.Set(2, 511, std::numeric_limits<float>::infinity());
  x.Upload();
  const DeviceBuffer<uint8_t> codes(std::vector<uint8_t>(3 * kCols));
  const DeviceBuffer<float> scales(std::vector<float>(3));
  ASSERT_CUDA(QuantizeRows(HalfType::kBf16, x.device(), x.stride(), 3, kCols, codes.get(),
                           scales.get(), nullptr));
  ASSERT_CUDA(cudaDeviceSynchronize());
  const std::vector<float> scale = scales.ToHost();
  EXPECT_FALSE(std::isfinite(scale[0]));
  EXPECT_TRUE(std::isfinite(scale[1]));
  EXPECT_FALSE(std::isfinite(scale[2]));
}

TEST_F(Fp8Test, ExpandsToTheRoundedProductsOfCodeAndScale) {
  std::mt19937 rng(3);
  constexpr int64_t kRows = 7;
  constexpr int64_t kCols = 2064;
  std::vector<uint8_t> codes(kRows * kCols);
  for (uint8_t& code : codes) {
    do code = static_cast<uint8_t>(rng());
    while ((code & 0x7f) == 0x7f);
  }
  std::vector<float> scales;
  for (int64_t r = 0; r < kRows; ++r) scales.push_back(0.001f * static_cast<float>(r + 1));
  const DeviceBuffer<uint8_t> device_codes(codes);
  const DeviceBuffer<float> device_scales(scales);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    const DeviceBuffer<uint16_t> out(std::vector<uint16_t>(kRows * kCols, 0x7fff));
    ASSERT_CUDA(
        ExpandFp8(type, device_codes.get(), device_scales.get(), kRows, kCols, out.get(), nullptr));
    ASSERT_CUDA(cudaDeviceSynchronize());
    const std::vector<uint16_t> got = out.ToHost();
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const float value =
          Fp8Value(codes[static_cast<size_t>(i)]) * scales[static_cast<size_t>(i / kCols)];
      ASSERT_EQ(WidenHalf(got[static_cast<size_t>(i)], type),
                WidenHalf(NarrowToHalf(value, type), type))
          << i;
    }
  }
}

TEST_F(Fp8Test, RefusesWhatTheContractExcludes) {
  const HalfMatrix x(2, 64, HalfType::kBf16);
  const DeviceBuffer<uint8_t> codes(std::vector<uint8_t>(256));
  const DeviceBuffer<float> scales(std::vector<float>(2));
  const auto quantize = [&](int64_t stride, int64_t cols, float* to) {
    return QuantizeRows(HalfType::kBf16, x.device(), stride, 2, cols, codes.get(), to, nullptr);
  };
  EXPECT_EQ(quantize(x.stride(), 64, scales.get()), cudaSuccess);
  EXPECT_EQ(quantize(x.stride(), 60, scales.get()), cudaErrorInvalidValue);
  EXPECT_EQ(quantize(60, 56, scales.get()), cudaErrorInvalidValue);
  EXPECT_EQ(quantize(x.stride(), 64, nullptr), cudaErrorInvalidValue);
  ASSERT_CUDA(cudaDeviceSynchronize());
}

}  // namespace
}  // namespace quiver
