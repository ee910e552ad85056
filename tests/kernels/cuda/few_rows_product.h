// What products of few rows are compared with, and where they run.
#ifndef QUIVER_TESTS_KERNELS_CUDA_FEW_ROWS_PRODUCT_H_
#define QUIVER_TESTS_KERNELS_CUDA_FEW_ROWS_PRODUCT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/cuda/device_memory.h"

namespace quiver {

class HopperTest : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    int major = 0;
    ASSERT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    if (major != 9) GTEST_SKIP() << "for Hopper only";
  }
};

// x W^T, row-major, of weight [n, x.cols()].
inline std::vector<double> PlainProduct(const HalfMatrix& x, const std::vector<float>& weight,
                                        int64_t n) {
  const std::vector<float> rows = x.Floats();
  const int64_t k = x.cols();
  std::vector<double> product;
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < n; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += static_cast<double>(rows[static_cast<size_t>(r * k + i)]) *
               weight[static_cast<size_t>(c * k + i)];
      }
      product.push_back(sum);
    }
  }
  return product;
}

// Of factors of about 1, k of them summed: F32 accumulation in another order, and one rounding.
// `want` may have more rows.
inline void ExpectProduct(const HalfMatrix& y, const std::vector<double>& want, int64_t k,
                          const std::string& what) {
  constexpr double kF32Tolerance = 5e-7;
  for (int64_t r = 0; r < y.rows(); ++r) {
    for (int64_t c = 0; c < y.cols(); ++c) {
      const double value = want[static_cast<size_t>(r * y.cols() + c)];
      ASSERT_NEAR(y.at(r, c), value,
                  RoundingOf(y.type(), value) + kF32Tolerance * static_cast<double>(k))
          << what << ", " << y.rows() << " rows: row " << r << " column " << c;
    }
  }
}

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_FEW_ROWS_PRODUCT_H_
