// Matrix products with a constant right-hand side: y = x W^T, W being a weight matrix as a
// checkpoint stores it.
//
// Every element of y is one chain of fused multiply-adds over k, in ascending order within blocks
// of kMatmulBlockK whose sums are added in ascending order. That order depends on nothing but k, so
// a row of y is bit-identical whatever other rows share the call and however many threads run it.
// Between instruction sets, only the generic one (which rounds each product) may differ from the
// others.
#ifndef QUIVER_KERNELS_CPU_MATMUL_H_
#define QUIVER_KERNELS_CPU_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/stored_type.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver::cpu {

// Outputs of one panel of a PackedMatrix; n is rounded up to it in memory.
inline constexpr int64_t kPanelWidth = 16;
// Longest chain of fused multiply-adds.
inline constexpr int64_t kMatmulBlockK = 384;

// Some outputs of a weight matrix: `n` rows of k elements each, row-major and dense (the layout of
// a PyTorch Linear's weight). `data` need not be aligned.
struct WeightRows {
  StoredType type = StoredType::kF32;
  const void* data = nullptr;
  int64_t n = 0;
};

// The same as codes. Element (i, j) is
//   kInt4: (code - zero point) * scale, codes from 0 to 15;
//   kFp8:  code * scale, codes in E4M3, none of them NaN;
// in F32 arithmetic, with the scale (and zero point) of output i and of input j's group.
enum class Coding : uint8_t { kNone, kInt4, kFp8 };
struct CodedRows {
  Coding coding = Coding::kInt4;
  // [n, k], one a byte.
  const uint8_t* codes = nullptr;
  // [n, num_groups]; zero points of kInt4 alone.
  const float* scales = nullptr;
  const uint8_t* zero_points = nullptr;
  int64_t num_groups = 0;
  // [k], which may be the same for many rows.
  const uint16_t* input_groups = nullptr;
  int64_t n = 0;
};

// A weight matrix W [n, k], copied once into the order in which Matmul reads it and kept in the
// type it was stored in (F32 if its parts differ in type). Immutable; any number of threads may use
// it at once.
class PackedMatrix {
 public:
  // An empty matrix.
  PackedMatrix() = default;

  // The parts one under another: W's rows are those of parts[0], then those of parts[1], ... So q,
  // k and v become one matrix.
  static PackedMatrix Pack(std::span<const WeightRows> parts, int64_t k, ThreadPool* pool);

  // The two halves of a gated MLP, for GatedMatmul. `gate.n == up.n`.
  static PackedMatrix PackGated(const WeightRows& gate, const WeightRows& up, int64_t k,
                                ThreadPool* pool);

  // As Pack and PackGated. All parts have one coding, one number of groups and one table of them.
  // Products are those with the elements as floats, to the last bit.
  static PackedMatrix PackCoded(std::span<const CodedRows> parts, int64_t k, ThreadPool* pool);
  static PackedMatrix PackCodedGated(const CodedRows& gate, const CodedRows& up, int64_t k,
                                     ThreadPool* pool);

  // Outputs; of a gated matrix, those of one half.
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  bool gated() const { return gated_; }
  // Of what a panel holds; kF32 where it holds codes.
  StoredType type() const { return type_; }
  Coding coding() const { return coding_; }
  // Memory taken.
  size_t size_bytes() const;

  // Panel p holds outputs [p * kPanelWidth, (p + 1) * kPanelWidth), zeros past n, as
  // [k, kPanelWidth]. In a gated matrix panels 2p and 2p + 1 are panel p of gate and of up.
  // Aligned to 64 bytes. Codes are in a form of the kernels' own.
  const void* panel(int64_t p) const { return data_.get() + static_cast<size_t>(p) * panel_bytes_; }

  // Of codes: scales [num_groups, kPanelWidth] of panel p, and zero points alike; each input's
  // group.
  const float* panel_scales(int64_t p) const {
    return scales_.data() + p * num_groups_ * kPanelWidth;
  }
  const float* panel_zero_points(int64_t p) const {
    return zero_points_.data() + p * num_groups_ * kPanelWidth;
  }
  const uint16_t* input_groups() const { return input_groups_.data(); }
  int64_t num_panels() const { return (n_ + kPanelWidth - 1) / kPanelWidth * (gated_ ? 2 : 1); }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };

  void Allocate(StoredType type, Coding coding, int64_t n, int64_t k, bool gated);
  // Room for the groups of codes, as `rows` has them.
  void AllocateGroups(const CodedRows& rows);
  // Fills panel p with outputs [first, first + kPanelWidth) of `parts`, taken together.
  void PackCodedPanel(std::span<const CodedRows> parts, int64_t first, int64_t p);

  StoredType type_ = StoredType::kF32;
  Coding coding_ = Coding::kNone;
  size_t panel_bytes_ = 0;
  int64_t n_ = 0;
  int64_t k_ = 0;
  bool gated_ = false;
  std::unique_ptr<std::byte[], Free> data_;
  int64_t num_groups_ = 0;
  std::vector<float> scales_;
  std::vector<float> zero_points_;
  std::vector<uint16_t> input_groups_;
};

// What happens to a product before it is stored:
// y = activation(x W^T + bias) + residual.
struct Epilogue {
  // [n], or null.
  const float* bias = nullptr;
  Activation activation = Activation::kNone;
  // [m, n] with a row stride of its own, or null. May be y itself (y += ...), not overlap it
  // otherwise.
  const float* residual = nullptr;
  int64_t residual_stride = 0;
};

// y [m, n] = epilogue(x [m, k] W^T). Strides are those between rows, in elements. `w` must not be
// gated. x and y must not overlap. No alignment is asked for; k, n and m may be anything, 0
// included.
void Matmul(const float* x, int64_t x_stride, int64_t m, const PackedMatrix& w,
            const Epilogue& epilogue, float* y, int64_t y_stride, ThreadPool* pool);

// y [m, n] = activation(x gate^T) * (x up^T). `w` must be gated.
void GatedMatmul(const float* x, int64_t x_stride, int64_t m, const PackedMatrix& w,
                 Activation activation, float* y, int64_t y_stride, ThreadPool* pool);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_MATMUL_H_
