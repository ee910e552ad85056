// Device memory for kernel tests, and matrices in it that show what else was touched.
#ifndef QUIVER_TESTS_KERNELS_CUDA_DEVICE_MEMORY_H_
#define QUIVER_TESTS_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

#include "kernels/cpu/stored_type.h"
#include "kernels/cuda/half_type.h"

#define ASSERT_CUDA(call) ASSERT_EQ(call, cudaSuccess)

namespace quiver {

template <typename T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceBuffer(const std::vector<T>& from)
      : DeviceBuffer(std::max<size_t>(from.size(), 1)) {
    EXPECT_EQ(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  T* get() const { return data_; }
  std::vector<T> ToHost() const {
    std::vector<T> host(count_);
    EXPECT_EQ(cudaMemcpy(host.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return host;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// Base of tests that need a device; skipped where there is none.
class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
      cudaGetLastError();
      GTEST_SKIP() << "no CUDA device";
    }
  }
};

inline float WidenHalf(uint16_t bits, HalfType type) {
  return type == HalfType::kF16 ? cpu::HalfToFloat(bits) : cpu::Bfloat16ToFloat(bits);
}

inline uint16_t NarrowToHalf(float value, HalfType type) {
  return type == HalfType::kF16 ? cpu::FloatToHalf(value) : cpu::FloatToBfloat16(value);
}

// Of a value rounded once to the type: half a unit in its last place, and some F32 rounding.
inline double RoundingOf(HalfType type, double value) {
  const double half_unit = type == HalfType::kF16 ? 0x1p-11 : 0x1p-8;
  return (half_unit + 1e-5) * std::abs(value) + 1e-6;
}

// A row-major matrix of float or 16-bit elements, held on the host and copied to the device and
// back. Its rows have a gap after them, filled with one NaN, as are the elements until they are
// set.
template <typename Bits>
class DeviceMatrix {
 public:
  static constexpr Bits kPoison = sizeof(Bits) == 2 ? Bits(0x7fff) : Bits(0x7fffffff);

  // `type` counts for 16-bit elements alone.
  DeviceMatrix(int64_t rows, int64_t cols, HalfType type, int64_t gap = 8)
      : rows_(rows),
        cols_(cols),
        stride_(cols + gap),
        type_(type),
        host_(static_cast<size_t>(std::max<int64_t>(rows, 1) * stride_), kPoison),
        device_(host_) {}

  static DeviceMatrix Random(std::mt19937* rng, int64_t rows, int64_t cols, HalfType type,
                             int64_t gap = 8) {
    DeviceMatrix matrix(rows, cols, type, gap);
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) matrix.Set(r, c, normal(*rng));
    }
    matrix.Upload();
    return matrix;
  }
  DeviceMatrix(const DeviceMatrix& other)
      : rows_(other.rows_),
        cols_(other.cols_),
        stride_(other.stride_),
        type_(other.type_),
        host_(other.host_),
        device_(host_) {}
  // For matrices of one shape.
  DeviceMatrix& operator=(const DeviceMatrix& other) {
    EXPECT_EQ(host_.size(), other.host_.size());
    host_ = other.host_;
    Upload();
    return *this;
  }

  void Set(int64_t r, int64_t c, float value) {
    if constexpr (sizeof(Bits) == 2) {
      host_[Index(r, c)] = NarrowToHalf(value, type_);
    } else {
      host_[Index(r, c)] = std::bit_cast<Bits>(value);
    }
  }
  float at(int64_t r, int64_t c) const {
    if constexpr (sizeof(Bits) == 2) {
      return WidenHalf(host_[Index(r, c)], type_);
    } else {
      return std::bit_cast<float>(host_[Index(r, c)]);
    }
  }
  std::vector<Bits> RowBits(int64_t r) const {
    const auto from = host_.begin() + r * stride_;
    return {from, from + cols_};
  }
  // Its elements as F32, dense.
  std::vector<float> Floats() const {
    std::vector<float> floats;
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < cols_; ++c) floats.push_back(at(r, c));
    }
    return floats;
  }

  void Upload() {
    EXPECT_EQ(cudaMemcpy(device_.get(), host_.data(), host_.size() * sizeof(Bits),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  // Waits for the device, and checks that the gaps were not written.
  void Download() {
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    host_ = device_.ToHost();
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = cols_; c < stride_; ++c) {
        ASSERT_EQ(host_[Index(r, c)], kPoison) << "row " << r << " column " << c;
      }
    }
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t stride() const { return stride_; }
  HalfType type() const { return type_; }
  auto* device() const {
    if constexpr (sizeof(Bits) == 2) {
      return device_.get();
    } else {
      return reinterpret_cast<float*>(device_.get());
    }
  }

 private:
  size_t Index(int64_t r, int64_t c) const { return static_cast<size_t>(r * stride_ + c); }

  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  HalfType type_;
  std::vector<Bits> host_;
  DeviceBuffer<Bits> device_;
};

using HalfMatrix = DeviceMatrix<uint16_t>;
using FloatMatrix = DeviceMatrix<uint32_t>;

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_DEVICE_MEMORY_H_
