// Random int4 matrices for tests: as a checkpoint has them, on the host and on the device, and what
// they mean by plain arithmetic.
#ifndef QUIVER_TESTS_KERNELS_CUDA_INT4_SOURCE_H_
#define QUIVER_TESTS_KERNELS_CUDA_INT4_SOURCE_H_

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cuda/int4_matrix.h"
#include "tests/kernels/cuda/device_memory.h"

namespace quiver {

class RandomInt4Weight {
 public:
  // `group` columns share a scale and a zero; 0: all of a row. Scales are within a factor of two of
  // `scale`.
  RandomInt4Weight(std::mt19937* rng, int64_t n, int64_t k, int group, HalfType type,
                   float scale = 0.1f)
      : n_(n),
        k_(k),
        group_(group),
        groups_(group > 0 ? (k + group - 1) / group : 1),
        type_(type),
        values_(Bytes(rng, n * k / 2, 255)),
        zeros_(Bytes(rng, n * groups_, 16)),
        scales_(Scales(rng, scale)),
        device_values_(values_),
        device_zeros_(zeros_),
        device_scales_(scales_),
        packed_(std::vector<uint8_t>(static_cast<size_t>(Int4Bytes(n, k, group > 0 ? group : 128)),
                                     0xa5)) {
    const Int4Source source = {.values = device_values_.get(),
                               .zeros = device_zeros_.get(),
                               .scales = device_scales_.get(),
                               .groups = groups_};
    EXPECT_EQ(PackInt4(source, matrix(), nullptr), cudaSuccess);
  }

  Int4Matrix matrix() const { return {packed_.get(), n_, k_, group_ > 0 ? group_ : 128, type_}; }

  // The bits of an element: the exact difference times the scale, each rounded once.
  uint16_t Bits(int64_t row, int64_t column) const {
    const uint8_t byte = values_[static_cast<size_t>((row * k_ + column) / 2)];
    const int value = column % 2 == 0 ? byte & 15 : byte >> 4;
    const auto place = static_cast<size_t>(row * groups_ + (group_ > 0 ? column / group_ : 0));
    const float scale = WidenHalf(NarrowToHalf(scales_[place], type_), type_);
    return NarrowToHalf(static_cast<float>(value - zeros_[place]) * scale, type_);
  }
  std::vector<float> Floats() const {
    std::vector<float> floats;
    for (int64_t r = 0; r < n_; ++r) {
      for (int64_t c = 0; c < k_; ++c) floats.push_back(WidenHalf(Bits(r, c), type_));
    }
    return floats;
  }

 private:
  static std::vector<uint8_t> Bytes(std::mt19937* rng, int64_t count, int most) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count));
    std::uniform_int_distribution<int> any(0, most);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(any(*rng));
    return bytes;
  }
  std::vector<float> Scales(std::mt19937* rng, float middle) const {
    std::vector<float> scales(static_cast<size_t>(n_ * groups_));
    std::uniform_real_distribution<float> any(middle / 2, middle * 2);
    for (float& scale : scales) scale = any(*rng);
    return scales;
  }

  int64_t n_;
  int64_t k_;
  int group_;
  int64_t groups_;
  HalfType type_;
  std::vector<uint8_t> values_;
  std::vector<uint8_t> zeros_;
  std::vector<float> scales_;
  DeviceBuffer<uint8_t> device_values_;
  DeviceBuffer<uint8_t> device_zeros_;
  DeviceBuffer<float> device_scales_;
  DeviceBuffer<uint8_t> packed_;
};

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_INT4_SOURCE_H_
