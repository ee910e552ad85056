// Rows quantized to FP8 on the device, and FP8 matrices expanded, against plain arithmetic. Skipped
// where there is no device.
#include "kernels/cuda/fp8.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/norm.h"
#include "tests/kernels/cuda/device_memory.h"
#include "tests/kernels/cuda/fp8_value.h"

namespace quiver {
namespace {

using Fp8Test = DeviceTest;

// Codes of rows of `cols` elements, and a byte between them that must stay.
class Fp8Matrix {
 public:
  Fp8Matrix(int64_t rows, int64_t cols, int64_t stride)
      : cols_(cols),
        stride_(stride),
        codes_(std::vector<uint8_t>(static_cast<size_t>(rows * stride), kPoison)),
        scales_(std::vector<float>(static_cast<size_t>(rows))) {}

  Fp8Rows rows() const { return {codes_.get(), stride_, scales_.get()}; }

  // want(row, column), of which `slack` is by how much a value may be off before it is rounded,
  // relative to it.
  template <typename Want>
  void Expect(int64_t rows, double slack, Want want) const {
    const std::vector<uint8_t> codes = codes_.ToHost();
    const std::vector<float> scales = scales_.ToHost();
    for (int64_t r = 0; r < rows; ++r) {
      const float scale = scales[static_cast<size_t>(r)];
      double most = 0;
      for (int64_t c = 0; c < cols_; ++c) most = std::max(most, std::abs(want(r, c)));
      ASSERT_NEAR(scale, most / 448, most / 448 * (slack + 1e-6)) << "row " << r;
      for (int64_t c = 0; c < cols_; ++c) {
        const double value = want(r, c);
        // Half a unit in the last place of 4 bits, or of the smallest numbers.
        const double tolerance =
            std::max(std::abs(value) * (1.0 / 16 + slack), scale * 0x1p-10) * 1.001;
        ASSERT_NEAR(Fp8Value(codes[static_cast<size_t>(r * stride_ + c)]) * scale, value, tolerance)
            << "row " << r << " column " << c;
      }
      for (int64_t c = cols_; c < stride_; ++c) {
        ASSERT_EQ(codes[static_cast<size_t>(r * stride_ + c)], kPoison) << "row " << r;
      }
    }
  }

 private:
  static constexpr uint8_t kPoison = 0x7f;
  int64_t cols_;
  int64_t stride_;
  DeviceBuffer<uint8_t> codes_;
  DeviceBuffer<float> scales_;
};

TEST_F(Fp8Test, SwiGluScalesEachRowForItself) {
  std::mt19937 rng(11);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    for (const int64_t cols : {8, 3072, 4096, 9728, 12288, 16384}) {
      const HalfMatrix gate_up = HalfMatrix::Random(&rng, 5, 2 * cols, type);
      const auto want = [&](int64_t r, int64_t c) {
        const double gate = gate_up.at(r, c);
        return gate / (1 + std::exp(-gate)) * gate_up.at(r, cols + c);
      };
      const Fp8Matrix apart(5, cols, cols + 16);
      ASSERT_CUDA(
          SwiGluFp8(gate_up.device(), gate_up.stride(), 5, cols, apart.rows(), type, nullptr));
      ASSERT_CUDA(cudaDeviceSynchronize());
      apart.Expect(5, 1e-5, want);
      // In the rows that it is made from.
      const DeviceBuffer<float> scales(5);
      auto* right = reinterpret_cast<uint8_t*>(gate_up.device()) + 2 * cols;
      const Fp8Rows in_place = {right, 2 * gate_up.stride(), scales.get()};
      ASSERT_CUDA(SwiGluFp8(gate_up.device(), gate_up.stride(), 5, cols, in_place, type, nullptr));
      std::vector<uint8_t> got(static_cast<size_t>(cols));
      std::vector<uint8_t> same(static_cast<size_t>(cols));
      for (int64_t r = 0; r < 5; ++r) {
        const auto row = [&](const Fp8Rows& rows, std::vector<uint8_t>* to) {
          return cudaMemcpy(to->data(), static_cast<uint8_t*>(rows.codes) + r * rows.stride,
                            to->size(), cudaMemcpyDeviceToHost);
        };
        ASSERT_CUDA(row(in_place, &got));
        ASSERT_CUDA(row(apart.rows(), &same));
        ASSERT_EQ(got, same) << cols << ": row " << r;
      }
    }
  }
  const HalfMatrix wide(1, 2 * 16392, HalfType::kBf16);
  const Fp8Matrix out(1, 16392, 16392);
  EXPECT_EQ(SwiGluFp8(wide.device(), wide.stride(), 1, 16392, out.rows(), HalfType::kBf16, nullptr),
            cudaErrorInvalidValue);
}

TEST_F(Fp8Test, NormScalesEachRowForItself) {
  std::mt19937 rng(12);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    for (const int64_t dim : {64, 256, 1024, 2560, 4096, 16384}) {
      constexpr int64_t kRows = 7;
      const FloatMatrix residual = FloatMatrix::Random(&rng, kRows, dim, type);
      const FloatMatrix weight = FloatMatrix::Random(&rng, 1, dim, type);
      const HalfMatrix delta = HalfMatrix::Random(&rng, kRows, dim, type);
      const auto want = [&](int64_t r, int64_t c) {
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i) {
          const double sum = double{residual.at(r, i)} + delta.at(r, i);
          squares += sum * sum;
        }
        return (double{residual.at(r, c)} + delta.at(r, c)) /
               std::sqrt(squares / static_cast<double>(dim) + 1e-6) * weight.at(0, c);
      };
      const Fp8Matrix out(kRows, dim, dim + 16);
      NormTensors tensors;
      tensors.residual = residual.device();
      tensors.residual_stride = residual.stride();
      tensors.delta = delta.device();
      tensors.delta_stride = delta.stride();
      tensors.fp8 = out.rows();
      tensors.rows = kRows;
      tensors.dim = dim;
      tensors.type = type;
      ASSERT_CUDA(AddRmsNorm(tensors, weight.device(), 1e-6f, nullptr));
      ASSERT_CUDA(cudaDeviceSynchronize());
      // Some rows of the wide ones, as what is wanted is slow to make.
      out.Expect(dim > 1024 ? 1 : kRows, 1e-5, want);
      tensors.out = nullptr;
      EXPECT_EQ(AddLayerNorm(tensors, weight.device(), weight.device(), 1e-6f, nullptr),
                cudaErrorInvalidValue);
    }
  }
}

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
      ASSERT_CUDA(QuantizeRows(type, x.device(), x.stride(), kRows, cols,
                               {codes.get(), cols, scales.get()}, nullptr));
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
  ASSERT_CUDA(QuantizeRows(HalfType::kBf16, x.device(), x.stride(), 3, kCols,
                           {codes.get(), kCols, scales.get()}, nullptr));
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
    return QuantizeRows(HalfType::kBf16, x.device(), stride, 2, cols, {codes.get(), cols, to},
                        nullptr);
  };
  EXPECT_EQ(quantize(x.stride(), 64, scales.get()), cudaSuccess);
  EXPECT_EQ(quantize(x.stride(), 60, scales.get()), cudaErrorInvalidValue);
  EXPECT_EQ(quantize(60, 56, scales.get()), cudaErrorInvalidValue);
  EXPECT_EQ(quantize(x.stride(), 64, nullptr), cudaErrorInvalidValue);
  ASSERT_CUDA(cudaDeviceSynchronize());
}

}  // namespace
}  // namespace quiver
