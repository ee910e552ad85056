// The device's product for few rows against plain arithmetic, by the kernel of choice and by each
// one alone. Skipped where there is no device, or not the one a kernel is for.
#include "kernels/cuda/few_rows_matmul.h"

#include <cstdint>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/few_rows_kernels.h"
#include "tests/kernels/cuda/device_memory.h"

namespace quiver {
namespace {

// For each summed column, of factors of about 1: F32 accumulation in another order.
constexpr double kF32Tolerance = 5e-7;
constexpr int64_t kRows[] = {1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 57, 64};

struct Way {
  const char* name;
  cudaError_t (*run)(const FewRowsTensors& tensors, cudaStream_t stream);
  bool is_for_hopper;
};

std::ostream& operator<<(std::ostream& out, const Way& way) { return out << way.name; }

const Way kWays[] = {
    {"Chosen", FewRowsMatmul, false},
    {"Portable", FewRowsSm80, false},
    {"Hopper", FewRowsSm90, true},
};

class FewRowsMatmulTest : public DeviceTest, public testing::WithParamInterface<Way> {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped() || !GetParam().is_for_hopper) return;
    int major = 0;
    ASSERT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major != 9) GTEST_SKIP() << "for Hopper only";
  }

  static cudaError_t Run(const FewRowsTensors& tensors) { return GetParam().run(tensors, nullptr); }

  // A workspace, which calls must leave fit for the next one.
  static void* Workspace() {
    static DeviceBuffer<unsigned char>* const workspace = [] {
      int multiprocessors = 0;
      EXPECT_EQ(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0),
                cudaSuccess);
      return new DeviceBuffer<unsigned char>(
          std::vector<unsigned char>(FewRowsWorkspaceBytes(multiprocessors)));
    }();
    return workspace->get();
  }

  static FewRowsTensors TensorsOf(const HalfMatrix& x, const HalfMatrix& weight,
                                  const HalfMatrix& y) {
    FewRowsTensors tensors;
    tensors.x = x.device();
    tensors.x_stride = x.stride();
    tensors.weight = weight.device();
    tensors.y = y.device();
    tensors.y_stride = y.stride();
    tensors.rows = y.rows();
    tensors.out_features = weight.rows();
    tensors.in_features = weight.cols();
    tensors.type = x.type();
    tensors.workspace = Workspace();
    return tensors;
  }

  // y for the first `rows` rows of x.
  static HalfMatrix Product(const HalfMatrix& x, const HalfMatrix& weight, int64_t rows) {
    HalfMatrix y(rows, weight.rows(), x.type());
    EXPECT_EQ(Run(TensorsOf(x, weight, y)), cudaSuccess);
    y.Download();
    return y;
  }

  static HalfMatrix RandomWeight(std::mt19937* rng, int64_t n, int64_t k, HalfType type) {
    return HalfMatrix::Random(rng, n, k, type, 0);
  }
};

std::vector<double> PlainProduct(const HalfMatrix& x, const HalfMatrix& weight) {
  const std::vector<float> x_floats = x.Floats();
  const std::vector<float> weight_floats = weight.Floats();
  const int64_t k = x.cols();
  std::vector<double> product;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t n = 0; n < weight.rows(); ++n) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += static_cast<double>(x_floats[r * k + i]) * weight_floats[n * k + i];
      }
      product.push_back(sum);
    }
  }
  return product;
}

TEST_P(FewRowsMatmulTest, ProductsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  for (const HalfType type : {HalfType::kBf16, HalfType::kF16}) {
    // Whole and broken tiles, chunks and shares of blocks; more blocks than tiles, and fewer.
    for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{8, 8},
                                                                       {128, 64},
                                                                       {136, 72},
                                                                       {120, 1000},
                                                                       {384, 384},
                                                                       {1000, 328},
                                                                       {128, 9728},
                                                                       {640, 2560},
                                                                       {4104, 512},
                                                                       {20000, 136}}) {
      const HalfMatrix x = HalfMatrix::Random(&rng, kMaxFewRows, k, type);
      const HalfMatrix weight = RandomWeight(&rng, n, k, type);
      const std::vector<double> want = PlainProduct(x, weight);
      for (const int64_t rows : kRows) {
        const HalfMatrix y = Product(x, weight, rows);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < n; ++c) {
            const double value = want[r * n + c];
            ASSERT_NEAR(y.at(r, c), value,
                        RoundingOf(type, value) + kF32Tolerance * static_cast<double>(k))
                << n << " x " << k << ", " << rows << " rows: row " << r << " column " << c;
          }
        }
      }
    }
  }
}

// Where a block reads more of W than its ring is long many times over.
TEST_P(FewRowsMatmulTest, ProductByALargeWeightIsThatOfPlainArithmetic) {
  std::mt19937 rng(6);
  constexpr int64_t kOut = 19456;
  constexpr int64_t kIn = 2560;
  const HalfMatrix x = HalfMatrix::Random(&rng, 2, kIn, HalfType::kBf16);
  const HalfMatrix weight = RandomWeight(&rng, kOut, kIn, HalfType::kBf16);
  const std::vector<double> want = PlainProduct(x, weight);
  const HalfMatrix y = Product(x, weight, 2);
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t c = 0; c < kOut; ++c) {
      const double value = want[static_cast<size_t>(r * kOut + c)];
      ASSERT_NEAR(y.at(r, c), value, RoundingOf(HalfType::kBf16, value) + kF32Tolerance * kIn)
          << "row " << r << " column " << c;
    }
  }
}

TEST_P(FewRowsMatmulTest, RowHasTheSameBitsWhateverSharesItsBatch) {
  std::mt19937 rng(2);
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
           {6144, 2560}, {2560, 4096}, {19456, 2560}, {2560, 9728}}) {
    const HalfMatrix x = HalfMatrix::Random(&rng, kMaxFewRows, k, HalfType::kBf16);
    const HalfMatrix weight = RandomWeight(&rng, n, k, HalfType::kBf16);
    const HalfMatrix all = Product(x, weight, kMaxFewRows);
    for (const int64_t rows : kRows) {
      const HalfMatrix some = Product(x, weight, rows);
      for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(some.RowBits(r), all.RowBits(r)) << rows;
    }
    for (int repeat = 0; repeat < 20; ++repeat) {
      const HalfMatrix again = Product(x, weight, 32);
      for (int64_t r = 0; r < 32; ++r) ASSERT_EQ(again.RowBits(r), all.RowBits(r)) << repeat;
    }
  }
}

TEST_P(FewRowsMatmulTest, CallsInARowSeeWhatTheOneBeforeWrote) {
  std::mt19937 rng(3);
  constexpr int64_t kSize = 1024;
  const HalfMatrix x = HalfMatrix::Random(&rng, 32, kSize, HalfType::kBf16);
  // About as long a row after the product as before.
  HalfMatrix weight(kSize, kSize, HalfType::kBf16, 0);
  std::normal_distribution<float> normal(0, 1.0f / 32);
  for (int64_t n = 0; n < kSize; ++n) {
    for (int64_t k = 0; k < kSize; ++k) weight.Set(n, k, normal(rng));
  }
  weight.Upload();
  HalfMatrix waited = x;
  for (int i = 0; i < 30; ++i) waited = Product(waited, weight, 32);
  HalfMatrix even = x;
  HalfMatrix odd(32, kSize, HalfType::kBf16);
  for (int i = 0; i < 15; ++i) {
    ASSERT_CUDA(Run(TensorsOf(even, weight, odd)));
    ASSERT_CUDA(Run(TensorsOf(odd, weight, even)));
  }
  even.Download();
  for (int64_t r = 0; r < 32; ++r) ASSERT_EQ(even.RowBits(r), waited.RowBits(r)) << r;
}

TEST_P(FewRowsMatmulTest, BadRowStaysAlone) {
  std::mt19937 rng(4);
  HalfMatrix x = HalfMatrix::Random(&rng, 32, 328, HalfType::kBf16);
  const HalfMatrix weight = RandomWeight(&rng, 1000, 328, HalfType::kBf16);
  const HalfMatrix want = Product(x, weight, 32);
  for (int64_t c = 0; c < 328; ++c) x.Set(5, c, std::numeric_limits<float>::quiet_NaN());
  for (int64_t c = 0; c < 328; ++c) x.Set(17, c, std::numeric_limits<float>::infinity());
  x.Upload();
  const HalfMatrix got = Product(x, weight, 32);
  for (int64_t r = 0; r < 32; ++r) {
    if (r == 5 || r == 17) {
      EXPECT_FALSE(std::isfinite(got.at(r, 0)));
    } else {
      ASSERT_EQ(got.RowBits(r), want.RowBits(r)) << r;
    }
  }
}

TEST_P(FewRowsMatmulTest, CountersAreZeroAfterwards) {
  std::mt19937 rng(5);
  const HalfMatrix x = HalfMatrix::Random(&rng, 64, 4096, HalfType::kBf16);
  const HalfMatrix weight = RandomWeight(&rng, 2560, 4096, HalfType::kBf16);
  Product(x, weight, 64);
  std::vector<int32_t> counters(4096, -1);
  ASSERT_CUDA(
      cudaMemcpy(counters.data(), Workspace(), counters.size() * 4, cudaMemcpyDeviceToHost));
  EXPECT_EQ(counters, std::vector<int32_t>(4096));
}

using FewRowsContractTest = FewRowsMatmulTest;
INSTANTIATE_TEST_SUITE_P(Contract, FewRowsContractTest, testing::Values(kWays[0]));

TEST_P(FewRowsContractTest, RefusesWhatTheContractExcludes) {
  const HalfMatrix x(65, 64, HalfType::kBf16);
  const HalfMatrix weight(128, 64, HalfType::kBf16, 0);
  const HalfMatrix y(65, 128, HalfType::kBf16);
  const FewRowsTensors good = [&] {
    FewRowsTensors tensors = TensorsOf(x, weight, y);
    tensors.rows = 64;
    return tensors;
  }();
  const auto refused = [](const FewRowsTensors& tensors) {
    return FewRowsMatmul(tensors, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_FALSE(refused(good));
  FewRowsTensors bad = good;
  bad.rows = 65;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.in_features = 60;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.y_stride = 120;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.x = x.device() + 4;
  EXPECT_TRUE(refused(bad));
  bad = good;
  bad.workspace = nullptr;
  EXPECT_TRUE(refused(bad));
  ASSERT_CUDA(cudaDeviceSynchronize());
}

INSTANTIATE_TEST_SUITE_P(Ways, FewRowsMatmulTest, testing::ValuesIn(kWays),
                         [](const auto& way) { return std::string(way.param.name); });

}  // namespace
}  // namespace quiver
