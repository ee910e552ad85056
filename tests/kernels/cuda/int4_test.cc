// int4 matrices on the device and their product for few rows, against plain arithmetic. Skipped
// where there is no device, or not the one a kernel is for.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cuda/int4_few_rows.h"
#include "kernels/cuda/int4_matrix.h"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "tests/kernels/cuda/device_memory.h"
#include "tests/kernels/cuda/few_rows_product.h"
#include "tests/kernels/cuda/fp8_value.h"
#include "tests/kernels/cuda/int4_source.h"

namespace quiver {
namespace {

constexpr int64_t kRows[] = {1, 2, 8, 9, 16, 17, 31, 32, 33, 64, 65, 130, 200};
constexpr int64_t kMostRows = 200;

using Int4MatrixTest = DeviceTest;

TEST_F(Int4MatrixTest, ExpandsToTheRoundedProductsOfDifferenceAndScale) {
  std::mt19937 rng(1);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    for (const auto& [n, k, group] : std::vector<std::tuple<int64_t, int64_t, int>>{
             {64, 128, 128}, {72, 256, 64}, {200, 328, 32}, {128, 392, 128}, {24, 200, 0}}) {
      const RandomInt4Weight weight(&rng, n, k, group, type);
      for (const int64_t first : {int64_t{0}, n > 64 ? int64_t{64} : int64_t{0}}) {
        const int64_t rows = n - first;
        const DeviceBuffer<uint16_t> out(
            std::vector<uint16_t>(static_cast<size_t>(rows * k + 8), 0x7fff));
        ASSERT_CUDA(ExpandInt4(weight.matrix(), first, rows, out.get(), nullptr));
        ASSERT_CUDA(cudaDeviceSynchronize());
        const std::vector<uint16_t> got = out.ToHost();
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < k; ++c) {
            // Zeros of either sign are equal.
            ASSERT_EQ(WidenHalf(got[static_cast<size_t>(r * k + c)], type),
                      WidenHalf(weight.Bits(first + r, c), type))
                << n << " x " << k << ", groups of " << group << ": row " << first + r << " column "
                << c;
          }
        }
        for (int64_t i = rows * k; i < rows * k + 8; ++i) {
          ASSERT_EQ(got[static_cast<size_t>(i)], 0x7fff);
        }
      }
    }
  }
}

TEST_F(Int4MatrixTest, ExpandsToTheNearestCodesOfItsRowsScales) {
  std::mt19937 rng(7);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    for (const auto& [n, k, group] : std::vector<std::tuple<int64_t, int64_t, int>>{
             {64, 128, 128}, {72, 256, 64}, {200, 336, 32}, {128, 400, 128}, {24, 208, 0}}) {
      const RandomInt4Weight weight(&rng, n, k, group, type);
      const DeviceBuffer<float> scales(std::vector<float>(static_cast<size_t>(n + 1), -1));
      ASSERT_CUDA(Int4RowScales(weight.matrix(), scales.get(), nullptr));
      const std::vector<float> scale = scales.ToHost();
      EXPECT_EQ(scale[static_cast<size_t>(n)], -1);
      for (const int64_t first : {int64_t{0}, n > 64 ? int64_t{64} : int64_t{0}}) {
        const int64_t rows = n - first;
        const int64_t stride = k + 16;
        const DeviceBuffer<uint8_t> codes(
            std::vector<uint8_t>(static_cast<size_t>(rows * stride), 0x7f));
        ASSERT_CUDA(ExpandInt4ToFp8(weight.matrix(), first, rows,
                                    {codes.get(), stride, scales.get() + first}, nullptr));
        ASSERT_CUDA(cudaDeviceSynchronize());
        const std::vector<uint8_t> got = codes.ToHost();
        for (int64_t r = 0; r < rows; ++r) {
          const float s = scale[static_cast<size_t>(first + r)];
          float most = 0;
          for (int64_t c = 0; c < k; ++c) {
            const float value = WidenHalf(weight.Bits(first + r, c), type);
            most = std::max(most, std::abs(value));
            const float tolerance = std::max(std::abs(value) / 16, s * 0x1p-10f) * 1.001f;
            ASSERT_NEAR(Fp8Value(got[static_cast<size_t>(r * stride + c)]) * s, value, tolerance)
                << n << " x " << k << ", groups of " << group << ": row " << first + r << " column "
                << c;
          }
          // Nothing is cut, and no more than a bit of the exponent is given away.
          ASSERT_LE(most, s * 448 * 1.01f) << first + r;
          for (int64_t c = k; c < stride; ++c) {
            ASSERT_EQ(got[static_cast<size_t>(r * stride + c)], 0x7f);
          }
        }
      }
    }
  }
}

TEST_F(Int4MatrixTest, RandomOnesAreOfTheRangeAndTheSameEachTime) {
  constexpr int64_t kSize = 256;
  const auto make = [](uint64_t seed) {
    const DeviceBuffer<uint8_t> packed(static_cast<size_t>(Int4Bytes(kSize, kSize, 128)));
    const Int4Matrix matrix = {packed.get(), kSize, kSize, 128, HalfType::kBf16};
    EXPECT_EQ(RandomInt4(1, seed, matrix, nullptr), cudaSuccess);
    const DeviceBuffer<uint16_t> out(static_cast<size_t>(kSize * kSize));
    EXPECT_EQ(ExpandInt4(matrix, 0, kSize, out.get(), nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return out.ToHost();
  };
  const std::vector<uint16_t> values = make(5);
  EXPECT_EQ(values, make(5));
  EXPECT_NE(values, make(6));
  double squares = 0;
  for (const uint16_t bits : values) {
    const float value = WidenHalf(bits, HalfType::kBf16);
    ASSERT_LE(std::abs(value), 1.3f);
    squares += value * value;
  }
  EXPECT_NEAR(squares / (kSize * kSize), 1.0 / 3, 0.05);
}

class Int4FewRowsTest : public HopperTest {
 protected:
  static Int4FewRowsTensors TensorsOf(const HalfMatrix& x, const Int4Matrix& weight,
                                      const HalfMatrix& y) {
    Int4FewRowsTensors tensors;
    tensors.x = x.device();
    tensors.x_stride = x.stride();
    tensors.weight = weight;
    tensors.y = y.device();
    tensors.y_stride = y.stride();
    tensors.rows = y.rows();
    return tensors;
  }

  // y for the first `rows` rows of x; by the split if there is one.
  static HalfMatrix Product(const HalfMatrix& x, const Int4Matrix& weight, int64_t rows,
                            const QuantizedSplit* split = nullptr) {
    HalfMatrix y(rows, weight.n, weight.type);
    const Int4FewRowsTensors tensors = TensorsOf(x, weight, y);
    EXPECT_EQ(split != nullptr ? Int4FewRowsSm90(tensors, *split, nullptr)
                               : Int4FewRows(tensors, nullptr),
              cudaSuccess);
    y.Download();
    return y;
  }
};

TEST_F(Int4FewRowsTest, ProductsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(2);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    // Whole and broken panels, units and groups.
    for (const auto& [n, k, group] :
         std::vector<std::tuple<int64_t, int64_t, int>>{{8, 8, 128},
                                                        {128, 64, 64},
                                                        {136, 72, 32},
                                                        {384, 384, 128},
                                                        {1000, 328, 0},
                                                        {128, 2560, 128},
                                                        {200, 1536, 64},
                                                        {4104, 136, 32}}) {
      const RandomInt4Weight weight(&rng, n, k, group, type);
      const HalfMatrix x = HalfMatrix::Random(&rng, 70, k, type);
      const std::vector<double> want = PlainProduct(x, weight.Floats(), weight.matrix().n);
      for (const int64_t rows : {int64_t{1}, int64_t{9}, int64_t{17}, int64_t{40}, int64_t{70}}) {
        ExpectProduct(
            Product(x, weight.matrix(), rows), want, k,
            std::to_string(n) + " x " + std::to_string(k) + ", groups of " + std::to_string(group));
      }
    }
  }
}

TEST_F(Int4FewRowsTest, EverySplitGivesTheProduct) {
  std::mt19937 rng(3);
  const RandomInt4Weight weight(&rng, 840, 1536, 128, HalfType::kBf16);
  const HalfMatrix x = HalfMatrix::Random(&rng, 33, 1536, HalfType::kBf16);
  const std::vector<double> want = PlainProduct(x, weight.Floats(), weight.matrix().n);
  for (int blocks = 1; blocks <= 8; ++blocks) {
    for (int panels = 1; panels <= kInt4Unit.max_panels; ++panels) {
      const QuantizedSplit split = {blocks, panels};
      for (const int64_t rows : {int64_t{5}, int64_t{16}, int64_t{32}, int64_t{33}}) {
        ExpectProduct(Product(x, weight.matrix(), rows, &split), want, 1536,
                      std::to_string(blocks) + " blocks, " + std::to_string(panels) + " panels");
      }
    }
  }
}

TEST_F(Int4FewRowsTest, RowHasTheSameBitsWhateverSharesABatchOfItsKind) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {6144, 2560}, {2560, 4096}, {19456, 2560}, {2560, 9728}}) {
    std::mt19937 rng(4);
    const DeviceBuffer<uint8_t> packed(static_cast<size_t>(Int4Bytes(n, k, 128)));
    const Int4Matrix weight = {packed.get(), n, k, 128, HalfType::kBf16};
    ASSERT_CUDA(RandomInt4(0.05f, 7, weight, nullptr));
    const HalfMatrix x = HalfMatrix::Random(&rng, kMostRows, k, HalfType::kBf16);
    const HalfMatrix all = Product(x, weight, kMostRows);
    ASSERT_TRUE(std::isfinite(all.at(0, 0)));
    const HalfMatrix few = Product(x, weight, 32);
    for (const int64_t rows : kRows) {
      const HalfMatrix some = Product(x, weight, rows);
      const HalfMatrix& want = rows <= 32 ? few : all;
      for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(some.RowBits(r), want.RowBits(r)) << rows;
    }
    for (int repeat = 0; repeat < 20; ++repeat) {
      const HalfMatrix again = Product(x, weight, 32);
      for (int64_t r = 0; r < 32; ++r) ASSERT_EQ(again.RowBits(r), few.RowBits(r)) << repeat;
    }
  }
}

TEST_F(Int4FewRowsTest, CallsInARowSeeWhatTheOneBeforeWrote) {
  std::mt19937 rng(5);
  constexpr int64_t kSize = 1024;
  const HalfMatrix x = HalfMatrix::Random(&rng, 32, kSize, HalfType::kBf16);
  const DeviceBuffer<uint8_t> packed(static_cast<size_t>(Int4Bytes(kSize, kSize, 128)));
  const Int4Matrix weight = {packed.get(), kSize, kSize, 128, HalfType::kBf16};
  // About as long a row after the product as before.
  ASSERT_CUDA(RandomInt4(0.054f, 8, weight, nullptr));
  HalfMatrix waited = x;
  for (int i = 0; i < 30; ++i) waited = Product(waited, weight, 32);
  HalfMatrix even = x;
  HalfMatrix odd(32, kSize, HalfType::kBf16);
  for (int i = 0; i < 15; ++i) {
    ASSERT_CUDA(Int4FewRows(TensorsOf(even, weight, odd), nullptr));
    ASSERT_CUDA(Int4FewRows(TensorsOf(odd, weight, even), nullptr));
  }
  even.Download();
  for (int64_t r = 0; r < 32; ++r) ASSERT_EQ(even.RowBits(r), waited.RowBits(r)) << r;
}

TEST_F(Int4FewRowsTest, BadRowStaysAlone) {
  std::mt19937 rng(6);
  const RandomInt4Weight weight(&rng, 1000, 328, 64, HalfType::kBf16);
  HalfMatrix x = HalfMatrix::Random(&rng, 32, 328, HalfType::kBf16);
  const HalfMatrix want = Product(x, weight.matrix(), 32);
  for (int64_t c = 0; c < 328; ++c) x.Set(5, c, std::numeric_limits<float>::quiet_NaN());
  for (int64_t c = 0; c < 328; ++c) x.Set(17, c, std::numeric_limits<float>::infinity());
  x.Upload();
  const HalfMatrix got = Product(x, weight.matrix(), 32);
  for (int64_t r = 0; r < 32; ++r) {
    if (r == 5 || r == 17) {
      EXPECT_FALSE(std::isfinite(got.at(r, 0)));
    } else {
      ASSERT_EQ(got.RowBits(r), want.RowBits(r)) << r;
    }
  }
}

TEST_F(Int4FewRowsTest, RefusesWhatTheContractExcludes) {
  std::mt19937 rng(7);
  const RandomInt4Weight weight(&rng, 128, 64, 64, HalfType::kBf16);
  const HalfMatrix x(8, 64, HalfType::kBf16);
  const HalfMatrix y(8, 128, HalfType::kBf16);
  const Int4FewRowsTensors good = TensorsOf(x, weight.matrix(), y);
  const auto refused = [](const Int4FewRowsTensors& tensors) {
    return Int4FewRows(tensors, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_FALSE(refused(good));
  Int4FewRowsTensors bad = good;
  bad.rows = kMaxInt4Rows + 1;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.weight.k = 60;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.weight.group = 16;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.y_stride = 120;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.x = x.device() + 4;
  EXPECT_TRUE(refused(bad));
  ASSERT_CUDA(cudaDeviceSynchronize());
}

}  // namespace
}  // namespace quiver
