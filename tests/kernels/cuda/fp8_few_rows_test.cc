// The product of few rows by FP8 weights against plain arithmetic. Skipped where there is no
// device, or not the one the kernel is for.
#include "kernels/cuda/fp8_few_rows.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/fp8.h"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "tests/kernels/cuda/device_memory.h"
#include "tests/kernels/cuda/few_rows_product.h"
#include "tests/kernels/cuda/fp8_value.h"

namespace quiver {
namespace {

// Every code that is no NaN, subnormal ones included, in random order.
struct Fp8Matrix {
  Fp8Matrix(std::mt19937* rng, int64_t rows, int64_t cols)
      : n(rows),
        k(cols),
        host_codes(RandomCodes(rng, rows * cols)),
        host_scales(Scales(rows)),
        codes(host_codes),
        scales(host_scales) {}

  static std::vector<uint8_t> RandomCodes(std::mt19937* rng, int64_t count) {
    std::vector<uint8_t> random(static_cast<size_t>(count));
    for (uint8_t& code : random) {
      do code = static_cast<uint8_t>((*rng)());
      while ((code & 0x7f) == 0x7f);
    }
    return random;
  }
  // Values are at most about 1.
  static std::vector<float> Scales(int64_t rows) {
    std::vector<float> each;
    for (int64_t i = 0; i < rows; ++i) each.push_back(0.002f / static_cast<float>(1 + i % 7));
    return each;
  }
  std::vector<float> Floats() const {
    std::vector<float> floats;
    for (int64_t i = 0; i < n * k; ++i) {
      floats.push_back(Fp8Value(host_codes[static_cast<size_t>(i)]) *
                       host_scales[static_cast<size_t>(i / k)]);
    }
    return floats;
  }

  int64_t n;
  int64_t k;
  std::vector<uint8_t> host_codes;
  std::vector<float> host_scales;
  DeviceBuffer<uint8_t> codes;
  DeviceBuffer<float> scales;
};

class Fp8FewRowsTest : public HopperTest {
 protected:
  static Fp8FewRowsTensors TensorsOf(const HalfMatrix& x, const uint8_t* codes, const float* scales,
                                     const HalfMatrix& y) {
    return {.x = x.device(),
            .x_stride = x.stride(),
            .codes = codes,
            .scales = scales,
            .y = y.device(),
            .y_stride = y.stride(),
            .rows = y.rows(),
            .out_features = y.cols(),
            .in_features = x.cols(),
            .type = x.type()};
  }

  // y for the first `rows` rows of x; by the split if there is one.
  static HalfMatrix Product(const HalfMatrix& x, const Fp8Matrix& weight, int64_t rows,
                            const QuantizedSplit* split = nullptr) {
    HalfMatrix y(rows, weight.n, x.type());
    const Fp8FewRowsTensors tensors = TensorsOf(x, weight.codes.get(), weight.scales.get(), y);
    EXPECT_EQ(
        split != nullptr ? Fp8FewRowsSm90(tensors, *split, nullptr) : Fp8FewRows(tensors, nullptr),
        cudaSuccess);
    y.Download();
    return y;
  }
};

TEST_F(Fp8FewRowsTest, ProductsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    // Whole and broken panels and units.
    for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
             {16, 16}, {64, 128}, {144, 80}, {384, 384}, {1008, 336}, {128, 2560}, {4112, 144}}) {
      const Fp8Matrix weight(&rng, n, k);
      const HalfMatrix x = HalfMatrix::Random(&rng, 70, k, type);
      const std::vector<double> want = PlainProduct(x, weight.Floats(), n);
      for (const int64_t rows : {int64_t{1}, int64_t{9}, int64_t{17}, int64_t{40}, int64_t{70}}) {
        ExpectProduct(Product(x, weight, rows), want, k,
                      std::to_string(n) + " x " + std::to_string(k));
      }
    }
  }
}

TEST_F(Fp8FewRowsTest, EverySplitGivesTheProduct) {
  std::mt19937 rng(2);
  const Fp8Matrix weight(&rng, 848, 1536);
  const HalfMatrix x = HalfMatrix::Random(&rng, 33, 1536, HalfType::kBf16);
  const std::vector<double> want = PlainProduct(x, weight.Floats(), 848);
  for (int blocks = 1; blocks <= 8; ++blocks) {
    for (int panels = 1; panels <= kFp8Unit.max_panels; ++panels) {
      const QuantizedSplit split = {blocks, panels};
      for (const int64_t rows : {int64_t{5}, int64_t{16}, int64_t{32}, int64_t{33}}) {
        ExpectProduct(Product(x, weight, rows, &split), want, 1536,
                      std::to_string(blocks) + " blocks, " + std::to_string(panels) + " panels");
      }
    }
  }
}

TEST_F(Fp8FewRowsTest, RowHasTheSameBitsWhateverSharesABatchOfItsKind) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {6144, 2560}, {2560, 4096}, {19456, 2560}, {2560, 9728}}) {
    std::mt19937 rng(3);
    const Fp8Matrix weight(&rng, n, k);
    const HalfMatrix x = HalfMatrix::Random(&rng, 130, k, HalfType::kBf16);
    const HalfMatrix all = Product(x, weight, 130);
    ASSERT_TRUE(std::isfinite(all.at(0, 0)));
    const HalfMatrix few = Product(x, weight, 32);
    for (const int64_t rows : {1, 2, 8, 9, 16, 17, 31, 32, 33, 64, 65, 130}) {
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

TEST_F(Fp8FewRowsTest, CallsInARowSeeWhatTheOneBeforeWrote) {
  std::mt19937 rng(4);
  constexpr int64_t kSize = 1024;
  const HalfMatrix x = HalfMatrix::Random(&rng, 32, kSize, HalfType::kBf16);
  const DeviceBuffer<uint8_t> codes(static_cast<size_t>(kSize * kSize));
  const DeviceBuffer<float> scales(static_cast<size_t>(kSize));
  // About as long a row after the product as before.
  ASSERT_CUDA(RandomFp8(0.054f, 8, kSize, kSize, codes.get(), scales.get(), nullptr));
  ASSERT_CUDA(cudaDeviceSynchronize());
  const auto multiply = [&](const HalfMatrix& from, const HalfMatrix& to) {
    return Fp8FewRows(TensorsOf(from, codes.get(), scales.get(), to), nullptr);
  };
  HalfMatrix even = x;
  HalfMatrix odd(32, kSize, HalfType::kBf16);
  for (int i = 0; i < 15; ++i) {
    ASSERT_CUDA(multiply(even, odd));
    ASSERT_CUDA(cudaDeviceSynchronize());
    ASSERT_CUDA(multiply(odd, even));
    ASSERT_CUDA(cudaDeviceSynchronize());
  }
  even.Download();
  HalfMatrix at_once = x;
  for (int i = 0; i < 15; ++i) {
    ASSERT_CUDA(multiply(at_once, odd));
    ASSERT_CUDA(multiply(odd, at_once));
  }
  at_once.Download();
  for (int64_t r = 0; r < 32; ++r) ASSERT_EQ(at_once.RowBits(r), even.RowBits(r)) << r;
}

TEST_F(Fp8FewRowsTest, BadRowStaysAlone) {
  std::mt19937 rng(5);
  const Fp8Matrix weight(&rng, 1008, 336);
  HalfMatrix x = HalfMatrix::Random(&rng, 32, 336, HalfType::kBf16);
  const HalfMatrix want = Product(x, weight, 32);
  x.Set(5, 100, std::numeric_limits<float>::quiet_NaN());
  x.Upload();
  const HalfMatrix got = Product(x, weight, 32);
  for (int64_t r = 0; r < 32; ++r) {
    if (r == 5) {
      EXPECT_FALSE(std::isfinite(got.at(r, 0)));
    } else {
      ASSERT_EQ(got.RowBits(r), want.RowBits(r)) << r;
    }
  }
}

TEST_F(Fp8FewRowsTest, RefusesWhatTheContractExcludes) {
  std::mt19937 rng(6);
  const Fp8Matrix weight(&rng, 128, 64);
  const HalfMatrix x(8, 64, HalfType::kBf16);
  const HalfMatrix y(8, 128, HalfType::kBf16);
  const Fp8FewRowsTensors good = TensorsOf(x, weight.codes.get(), weight.scales.get(), y);
  const auto refused = [](const Fp8FewRowsTensors& tensors) {
    return Fp8FewRows(tensors, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_FALSE(refused(good));
  Fp8FewRowsTensors bad = good;
  bad.rows = kMaxFp8Rows + 1;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.in_features = 56;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.out_features = 120;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.y_stride = 120;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.x = x.device() + 4;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.scales = nullptr;
  EXPECT_TRUE(refused(bad));
  ASSERT_CUDA(cudaDeviceSynchronize());
}

}  // namespace
}  // namespace quiver
