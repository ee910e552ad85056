// What matmul.cc asks of an instruction set. Private to kernels/cpu.
#ifndef QUIVER_KERNELS_CPU_MATMUL_KERNEL_H_
#define QUIVER_KERNELS_CPU_MATMUL_KERNEL_H_

#include <cstdint>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/stored_type.h"

namespace quiver::cpu {

// Rows of x times some panels of a PackedMatrix, over one block of k.
struct PanelProduct {
  const float* x;
  int64_t x_stride;
  int64_t rows;
  // Starts at the block's first k; elements between one panel and the next.
  const void* panels;
  int64_t panel_stride;
  StoredType type;
  int num_panels;
  // Length of the block.
  int64_t count;
  // Panel p's sums are [rows, kPanelWidth] at sums + p * sums_stride.
  float* sums;
  int64_t sums_stride;
  // Whether this is k's first block, whose sums are stored; those of others are added.
  bool first;
};

// Finished sums of a panel on their way into y: `cols` columns, kPanelWidth but at the right edge.
struct PanelResult {
  const float* sums = nullptr;
  int64_t rows = 0;
  int cols = 0;
  Activation activation = Activation::kNone;
  // At the panel's first column; null where there is none.
  const float* bias = nullptr;
  const float* residual = nullptr;
  int64_t residual_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// A run of inputs of a panel of codes.
struct CodedBlock {
  Coding coding;
  // kInt4: [count, kPanelWidth / 2], byte i has column i's code in its lower half and that of
  // column i + kPanelWidth / 2 in its upper. kFp8: [count, kPanelWidth].
  const uint8_t* codes;
  // [groups, kPanelWidth].
  const float* scales;
  const float* zero_points;
  // [count].
  const uint16_t* input_groups;
  int64_t count;
};

struct MatmulKernel {
  // The block as floats, [count, kPanelWidth].
  void (*expand)(const CodedBlock& block, float* out);
  void (*multiply)(const PanelProduct& product);
  // y = activation(sums + bias) + residual
  void (*finish)(const PanelResult& result);
  // y = activation(sums) * up_sums
  void (*finish_gated)(const PanelResult& result, const float* up_sums);
};

extern const MatmulKernel kMatmulGeneric;
extern const MatmulKernel kMatmulAvx2;
extern const MatmulKernel kMatmulAvx512;

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_MATMUL_KERNEL_H_
