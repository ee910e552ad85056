#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <new>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_kernel.h"

namespace quiver::cpu {

void PackedMatrix::Free::operator()(std::byte* data) const {
  ::operator delete (data, std::align_val_t{64});
}

void PackedMatrix::Allocate(StoredType type, Coding coding, int64_t n, int64_t k, bool gated) {
  type_ = type;
  coding_ = coding;
  const auto elements = static_cast<size_t>(k * kPanelWidth);
  panel_bytes_ = coding == Coding::kInt4  ? elements / 2
                 : coding == Coding::kFp8 ? elements
                                          : elements * StoredSize(type);
  n_ = n;
  k_ = k;
  gated_ = gated;
  data_.reset(static_cast<std::byte*>(
      ::operator new (static_cast<size_t>(num_panels()) * panel_bytes_, std::align_val_t{64})));
}

size_t PackedMatrix::size_bytes() const {
  return static_cast<size_t>(num_panels()) * panel_bytes_ +
         (scales_.size() + zero_points_.size()) * sizeof(float) +
         input_groups_.size() * sizeof(uint16_t);
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
        std::copy_n(source, static_cast<size_t>(k) * sizeof(T),
                    reinterpret_cast<std::byte*>(row.data()));
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
  matrix.Allocate(type, Coding::kNone, n, k, /*gated=*/false);
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
  matrix.Allocate(type, Coding::kNone, gate.n, k, /*gated=*/true);
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

void PackedMatrix::PackCodedPanel(std::span<const CodedRows> parts, int64_t first, int64_t p) {
  auto* panel = reinterpret_cast<uint8_t*>(data_.get()) + static_cast<size_t>(p) * panel_bytes_;
  std::fill_n(panel, panel_bytes_, uint8_t{0});
  float* scales = scales_.data() + p * num_groups_ * kPanelWidth;
  float* zero_points = zero_points_.data() + p * num_groups_ * kPanelWidth;
  for (const CodedRows& part : parts) {
    const int64_t end = std::min(first + kPanelWidth, part.n);
    for (int64_t r = std::max<int64_t>(first, 0); r < end; ++r) {
      const int64_t column = r - first;
      const uint8_t* codes = part.codes + r * k_;
      if (coding_ == Coding::kInt4) {
        // A byte has a column's code and, above it, that of the column half a panel on.
        constexpr int64_t kHalf = kPanelWidth / 2;
        const int shift = column < kHalf ? 0 : 4;
        for (int64_t i = 0; i < k_; ++i) {
          panel[i * kHalf + column % kHalf] |= static_cast<uint8_t>(codes[i] << shift);
        }
      } else {
        PackColumn(codes, k_, panel, column);
      }
      for (int64_t group = 0; group < num_groups_; ++group) {
        scales[group * kPanelWidth + column] = part.scales[r * num_groups_ + group];
        if (coding_ == Coding::kInt4) {
          zero_points[group * kPanelWidth + column] = part.zero_points[r * num_groups_ + group];
        }
      }
    }
    first -= part.n;
  }
}

PackedMatrix PackedMatrix::PackCoded(std::span<const CodedRows> parts, int64_t k,
                                     ThreadPool* pool) {
  int64_t n = 0;
  for (const CodedRows& part : parts) n += part.n;
  PackedMatrix matrix;
  matrix.Allocate(StoredType::kF32, parts[0].coding, n, k, /*gated=*/false);
  matrix.AllocateGroups(parts[0]);
  ParallelFor(pool, matrix.num_panels(),
              [&](int64_t p) { matrix.PackCodedPanel(parts, p * kPanelWidth, p); });
  return matrix;
}

PackedMatrix PackedMatrix::PackCodedGated(const CodedRows& gate, const CodedRows& up, int64_t k,
                                          ThreadPool* pool) {
  PackedMatrix matrix;
  matrix.Allocate(StoredType::kF32, gate.coding, gate.n, k, /*gated=*/true);
  matrix.AllocateGroups(gate);
  ParallelFor(pool, matrix.num_panels(), [&](int64_t p) {
    const std::span<const CodedRows> part(p % 2 == 0 ? &gate : &up, 1);
    matrix.PackCodedPanel(part, p / 2 * kPanelWidth, p);
  });
  return matrix;
}

void PackedMatrix::AllocateGroups(const CodedRows& rows) {
  num_groups_ = rows.num_groups;
  const auto size = static_cast<size_t>(num_panels() * num_groups_ * kPanelWidth);
  scales_.assign(size, 0.0f);
  if (coding_ == Coding::kInt4) zero_points_.assign(size, 0.0f);
  input_groups_.assign(rows.input_groups, rows.input_groups + k_);
}

namespace {

// Rows of a task: 384 of their elements, a block of k, fit into half of a second-level cache of 512
// KiB. A multiple of every instruction set's rows of a tile.
constexpr int64_t kTaskRows = 168;
constexpr int64_t kRowMultiple = 12;
// Panels of a task: x's rows are read once for so many.
constexpr int64_t kTaskPanels = 4;
// Tasks a thread should have, so that none waits long for another's last.
constexpr int64_t kTasksPerThread = 3;

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A product cut into tasks of some rows times some panels.
struct Tasks {
  int64_t rows = 0;
  int64_t panels = 0;
  int64_t row_blocks = 0;
  int64_t panel_groups = 0;
};

// Whole tasks if there are enough of them for all threads; else fewer panels in one, then fewer
// rows.
Tasks CutIntoTasks(int64_t m, const PackedMatrix& w, const ThreadPool* pool) {
  const int64_t threads = pool == nullptr ? 1 : pool->num_threads();
  const int64_t wanted = threads == 1 ? 1 : threads * kTasksPerThread;
  const int64_t least_panels = w.gated() ? 2 : 1;
  Tasks tasks;
  tasks.panels = kTaskPanels;
  tasks.row_blocks = CeilDiv(m, kTaskRows);
  const auto too_few = [&] {
    tasks.panel_groups = CeilDiv(w.num_panels(), tasks.panels);
    return tasks.row_blocks * tasks.panel_groups < wanted;
  };
  while (too_few() && tasks.panels > least_panels) tasks.panels /= 2;
  if (too_few()) {
    const int64_t most_blocks = CeilDiv(m, 2 * kRowMultiple);
    tasks.row_blocks =
        std::max(tasks.row_blocks, std::min(most_blocks, CeilDiv(wanted, tasks.panel_groups)));
  }
  tasks.rows = CeilDiv(CeilDiv(m, tasks.row_blocks), kRowMultiple) * kRowMultiple;
  tasks.row_blocks = CeilDiv(m, tasks.rows);
  return tasks;
}

// Inputs [k, k + count) of a panel of codes.
CodedBlock CodedBlockOf(const PackedMatrix& w, int64_t panel, int64_t k, int64_t count) {
  const int64_t bytes_per_k = w.coding() == Coding::kInt4 ? kPanelWidth / 2 : kPanelWidth;
  return {.coding = w.coding(),
          .codes = static_cast<const uint8_t*>(w.panel(panel)) + k * bytes_per_k,
          .scales = w.panel_scales(panel),
          .zero_points = w.coding() == Coding::kInt4 ? w.panel_zero_points(panel) : nullptr,
          .input_groups = w.input_groups() + k,
          .count = count};
}

// Calls finish(sums, sums_stride, row, rows, panel, panels) for each task's sums.
template <typename Finish>
void MultiplyTasks(const MatmulKernel& kernel, const float* x, int64_t x_stride, int64_t m,
                   const PackedMatrix& w, ThreadPool* pool, const Finish& finish) {
  if (m == 0 || w.n() == 0) return;
  const Tasks tasks = CutIntoTasks(m, w, pool);
  ParallelFor(pool, tasks.row_blocks * tasks.panel_groups, [&](int64_t task) {
    alignas(64) float sums[kTaskPanels * kTaskRows * kPanelWidth];
    // Of codes: a block of each panel as floats.
    alignas(64) float expanded[kTaskPanels * kMatmulBlockK * kPanelWidth];
    const int64_t row = task / tasks.panel_groups * tasks.rows;
    const int64_t panel = task % tasks.panel_groups * tasks.panels;
    PanelProduct product;
    product.x_stride = x_stride;
    product.rows = std::min(tasks.rows, m - row);
    product.panel_stride = w.k() * kPanelWidth;
    product.type = w.type();
    product.num_panels = static_cast<int>(std::min(tasks.panels, w.num_panels() - panel));
    product.sums = sums;
    product.sums_stride = product.rows * kPanelWidth;
    // With k = 0 one empty block makes the sums zero.
    int64_t k = 0;
    do {
      product.x = x + row * x_stride + k;
      product.count = std::min(kMatmulBlockK, w.k() - k);
      product.first = k == 0;
      if (w.coding() == Coding::kNone) {
        product.panels = static_cast<const std::byte*>(w.panel(panel)) +
                         static_cast<size_t>(k * kPanelWidth) * StoredSize(w.type());
      } else {
        product.panels = expanded;
        product.panel_stride = product.count * kPanelWidth;
        for (int p = 0; p < product.num_panels; ++p) {
          kernel.expand(CodedBlockOf(w, panel + p, k, product.count),
                        expanded + p * product.panel_stride);
        }
      }
      kernel.multiply(product);
      k += product.count;
    } while (k < w.k());
    finish(sums, product.sums_stride, row, product.rows, panel, product.num_panels);
  });
}

const MatmulKernel& Kernel() { return KernelFor(kMatmulGeneric, kMatmulAvx2, kMatmulAvx512); }

}  // namespace

void Matmul(const float* x, int64_t x_stride, int64_t m, const PackedMatrix& w,
            const Epilogue& epilogue, float* y, int64_t y_stride, ThreadPool* pool) {
  const MatmulKernel& kernel = Kernel();
  const auto finish = [&](const float* sums, int64_t sums_stride, int64_t row, int64_t rows,
                          int64_t panel, int panels) {
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t column = (panel + p) * kPanelWidth;
      PanelResult result = {.sums = sums + p * sums_stride,
                            .rows = rows,
                            .cols = static_cast<int>(std::min(kPanelWidth, w.n() - column)),
                            .activation = epilogue.activation,
                            .residual_stride = epilogue.residual_stride,
                            .y = y + row * y_stride + column,
                            .y_stride = y_stride};
      if (epilogue.bias != nullptr) result.bias = epilogue.bias + column;
      if (epilogue.residual != nullptr) {
        result.residual = epilogue.residual + row * epilogue.residual_stride + column;
      }
      kernel.finish(result);
    }
  };
  MultiplyTasks(kernel, x, x_stride, m, w, pool, finish);
}

void GatedMatmul(const float* x, int64_t x_stride, int64_t m, const PackedMatrix& w,
                 Activation activation, float* y, int64_t y_stride, ThreadPool* pool) {
  const MatmulKernel& kernel = Kernel();
  const auto finish = [&](const float* sums, int64_t sums_stride, int64_t row, int64_t rows,
                          int64_t panel, int panels) {
    for (int64_t p = 0; p < panels; p += 2) {
      const int64_t column = (panel + p) / 2 * kPanelWidth;
      const PanelResult result = {.sums = sums + p * sums_stride,
                                  .rows = rows,
                                  .cols = static_cast<int>(std::min(kPanelWidth, w.n() - column)),
                                  .activation = activation,
                                  .y = y + row * y_stride + column,
                                  .y_stride = y_stride};
      kernel.finish_gated(result, sums + (p + 1) * sums_stride);
    }
  };
  MultiplyTasks(kernel, x, x_stride, m, w, pool, finish);
}

}  // namespace quiver::cpu
