#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

namespace quiver::cpu {

void PackedMatrix::Free::operator()(std::byte* data) const {
  ::operator delete (data, std::align_val_t{64});
}

void PackedMatrix::Allocate(StoredType type, int64_t n, int64_t k, bool gated) {
  type_ = type;
  n_ = n;
  k_ = k;
  gated_ = gated;
  data_.reset(static_cast<std::byte*>(::operator new (size_bytes(), std::align_val_t{64})));
}

size_t PackedMatrix::size_bytes() const {
  return static_cast<size_t>(num_panels() * kPanelWidth * k_) * StoredSize(type_);
}

namespace {

// Writes output column `column` of a panel [k, kPanelWidth].
template <typename T>
void PackColumn(const T* row, int64_t k, T* panel, int64_t column) {
  for (int64_t i = 0; i < k; ++i) panel[i * kPanelWidth + column] = row[i];
}

// Fills one panel with outputs [first, first + kPanelWidth) of `parts`, taken together.
template <typename T>
void PackPanel(std::span<const WeightRows> parts, int64_t first, int64_t k, T* panel) {
  std::fill_n(panel, k * kPanelWidth, T{0});
  std::vector<T> row(static_cast<size_t>(k));
  for (const WeightRows& part : parts) {
    const int64_t begin = std::max<int64_t>(first, 0);
    const int64_t end = std::min(first + kPanelWidth, part.n);
    for (int64_t r = begin; r < end; ++r) {
      const auto* source = static_cast<const std::byte*>(part.data) +
                           static_cast<size_t>(r * k) * StoredSize(part.type);
      if constexpr (sizeof(T) == sizeof(float)) {
        WidenToFloat(part.type, source, k, row.data());
      } else {
        std::memcpy(row.data(), source, static_cast<size_t>(k) * sizeof(T));
      }
      PackColumn(row.data(), k, panel, r - first);
    }
    first -= part.n;
  }
}

}  // namespace

PackedMatrix PackedMatrix::Pack(std::span<const WeightRows> parts, int64_t k, ThreadPool* pool) {
  StoredType type = parts.empty() ? StoredType::kF32 : parts[0].type;
  int64_t n = 0;
  for (const WeightRows& part : parts) {
    n += part.n;
    if (part.type != type) type = StoredType::kF32;
  }
  PackedMatrix matrix;
  matrix.Allocate(type, n, k, /*gated=*/false);
  ParallelFor(pool, matrix.num_panels(), [&](int64_t p) {
    void* panel = const_cast<void*>(matrix.panel(p));
    if (type == StoredType::kF32) {
      PackPanel(parts, p * kPanelWidth, k, static_cast<float*>(panel));
    } else {
      PackPanel(parts, p * kPanelWidth, k, static_cast<uint16_t*>(panel));
    }
  });
  return matrix;
}

PackedMatrix PackedMatrix::PackGated(const WeightRows& gate, const WeightRows& up, int64_t k,
                                     ThreadPool* pool) {
  const StoredType type = gate.type == up.type ? gate.type : StoredType::kF32;
  PackedMatrix matrix;
  matrix.Allocate(type, gate.n, k, /*gated=*/true);
  ParallelFor(pool, matrix.num_panels(), [&](int64_t p) {
    const std::span<const WeightRows> part(p % 2 == 0 ? &gate : &up, 1);
    void* panel = const_cast<void*>(matrix.panel(p));
    if (type == StoredType::kF32) {
      PackPanel(part, p / 2 * kPanelWidth, k, static_cast<float*>(panel));
    } else {
      PackPanel(part, p / 2 * kPanelWidth, k, static_cast<uint16_t*>(panel));
    }
  });
  return matrix;
}

namespace {

void PanelProduct(const float* x, const PackedMatrix& w, int64_t p, float* sums) {
  std::vector<float> row(kPanelWidth);
  std::fill_n(sums, kPanelWidth, 0.0f);
  for (int64_t i = 0; i < w.k(); ++i) {
    const auto* source = static_cast<const std::byte*>(w.panel(p)) +
                         static_cast<size_t>(i * kPanelWidth) * StoredSize(w.type());
    WidenToFloat(w.type(), source, kPanelWidth, row.data());
    for (int64_t j = 0; j < kPanelWidth; ++j) sums[j] += x[i] * row[j];
  }
}

}  // namespace

void Matmul(const float* x, int64_t x_stride, int64_t m, const PackedMatrix& w,
            const Epilogue& epilogue, float* y, int64_t y_stride, ThreadPool* pool) {
  ParallelFor(pool, w.num_panels(), [&](int64_t p) {
    float sums[kPanelWidth];
    const int64_t first = p * kPanelWidth;
    const int64_t cols = std::min(kPanelWidth, w.n() - first);
    for (int64_t r = 0; r < m; ++r) {
      PanelProduct(x + r * x_stride, w, p, sums);
      for (int64_t j = 0; j < cols && epilogue.bias != nullptr; ++j) {
        sums[j] += epilogue.bias[first + j];
      }
      Activate(epilogue.activation, sums, cols, 1, cols, nullptr);
      for (int64_t j = 0; j < cols; ++j) {
        const float residual = epilogue.residual == nullptr
                                   ? 0.0f
                                   : epilogue.residual[r * epilogue.residual_stride + first + j];
        y[r * y_stride + first + j] = sums[j] + residual;
      }
    }
  });
}

void GatedMatmul(const float* x, int64_t x_stride, int64_t m, const PackedMatrix& w,
                 Activation activation, float* y, int64_t y_stride, ThreadPool* pool) {
  ParallelFor(pool, w.num_panels() / 2, [&](int64_t p) {
    float gate[kPanelWidth];
    float up[kPanelWidth];
    const int64_t first = p * kPanelWidth;
    const int64_t cols = std::min(kPanelWidth, w.n() - first);
    for (int64_t r = 0; r < m; ++r) {
      PanelProduct(x + r * x_stride, w, 2 * p, gate);
      PanelProduct(x + r * x_stride, w, 2 * p + 1, up);
      Activate(activation, gate, cols, 1, cols, nullptr);
      for (int64_t j = 0; j < cols; ++j) y[r * y_stride + first + j] = gate[j] * up[j];
    }
  });
}

}  // namespace quiver::cpu
