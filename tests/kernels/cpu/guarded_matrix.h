// Matrices for kernel tests, in memory that shows what else was touched.
#ifndef QUIVER_TESTS_KERNELS_CPU_GUARDED_MATRIX_H_
#define QUIVER_TESTS_KERNELS_CPU_GUARDED_MATRIX_H_

#include <bit>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace quiver::cpu {

// A row-major float matrix whose rows have a gap after them; gaps, and margins before and after,
// are filled with one NaN, as are the elements until they are set. Not aligned.
class GuardedMatrix {
 public:
  GuardedMatrix(int64_t rows, int64_t cols, int64_t gap = 3)
      : rows_(rows),
        cols_(cols),
        stride_(cols + gap),
        memory_(static_cast<size_t>(2 * kMargin + rows * stride_), std::bit_cast<float>(kPoison)) {}

  static GuardedMatrix Random(std::mt19937* rng, int64_t rows, int64_t cols, int64_t gap = 3) {
    GuardedMatrix matrix(rows, cols, gap);
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) matrix.at(r, c) = normal(*rng);
    }
    return matrix;
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  float* row(int64_t r) { return memory_.data() + kMargin + r * stride_; }
  const float* row(int64_t r) const { return memory_.data() + kMargin + r * stride_; }
  float* data() { return row(0); }
  const float* data() const { return row(0); }
  float& at(int64_t r, int64_t c) { return row(r)[c]; }
  float at(int64_t r, int64_t c) const { return row(r)[c]; }

  std::vector<uint32_t> RowBits(int64_t r) const {
    std::vector<uint32_t> bits;
    for (int64_t c = 0; c < cols_; ++c) bits.push_back(std::bit_cast<uint32_t>(at(r, c)));
    return bits;
  }
  std::vector<std::vector<uint32_t>> Bits() const {
    std::vector<std::vector<uint32_t>> bits;
    for (int64_t r = 0; r < rows_; ++r) bits.push_back(RowBits(r));
    return bits;
  }

  // Whether nothing but elements was written, and every element was.
  void ExpectWrittenExactly() const {
    for (size_t i = 0; i < memory_.size(); ++i) {
      const int64_t offset = static_cast<int64_t>(i) - kMargin;
      const bool element = offset >= 0 && offset < rows_ * stride_ && offset % stride_ < cols_;
      ASSERT_EQ(std::bit_cast<uint32_t>(memory_[i]) == kPoison, !element) << "offset " << offset;
    }
  }

 private:
  static constexpr uint32_t kPoison = 0x7fabcdefu;
  static constexpr int64_t kMargin = 67;

  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  std::vector<float> memory_;
};

}  // namespace quiver::cpu

#endif  // QUIVER_TESTS_KERNELS_CPU_GUARDED_MATRIX_H_
