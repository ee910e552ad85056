// All layers of a Qwen3 decoder for a batch of few tokens, in one launch that never stops reading
// weights: Hopper only.
//
// The sums of a product are added up in the order in which the device comes to them: two runs may
// differ in the last bit of an F32 sum, and by what follows from it.
#ifndef QUIVER_KERNELS_CUDA_DECODER_PASS_H_
#define QUIVER_KERNELS_CUDA_DECODER_PASS_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/half_type.h"

namespace quiver {

inline constexpr int kMaxDecoderRows = 32;
inline constexpr int kDecoderHeadDim = 128;

// Of all matrices.
enum class DecoderWeightForm {
  kHalf,  // of the shape's type, row-major and dense
  kFp8,   // E4M3, row-major and dense, without NaN; with an F32 scale for each row
  kInt4,  // as int4_matrix.h has it
};

struct DecoderShape {
  int64_t hidden = 0;  // a multiple of 128
  int64_t inner = 0;   // a multiple of 64
  int num_layers = 0;
  int num_heads = 0;  // a multiple of num_kv_heads; of kDecoderHeadDim each
  int num_kv_heads = 0;
  float norm_eps = 0;
  HalfType type = HalfType::kBf16;
  DecoderWeightForm form = DecoderWeightForm::kHalf;
  int int4_group = 0;  // of kInt4: columns that share a scale, 32, 64 or 128

  int64_t query_width() const { return int64_t{num_heads} * kDecoderHeadDim; }
  int64_t projection_width() const {
    return query_width() + int64_t{2} * num_kv_heads * kDecoderHeadDim;
  }
};

// Those of the first layer; every one of layer i lies i * layer_bytes behind its like. Vectors are
// F32; all are aligned to 16 bytes, as is layer_bytes.
struct DecoderWeights {
  const float* input_norm = nullptr;  // [hidden]
  const void* qkv = nullptr;          // [query | key | value, hidden]
  const float* query_norm = nullptr;  // [kDecoderHeadDim]
  const float* key_norm = nullptr;    // [kDecoderHeadDim]
  const void* output = nullptr;       // [hidden, query]
  const float* mlp_norm = nullptr;    // [hidden]
  const void* gate_up = nullptr;      // [gate | up, hidden]
  const void* down = nullptr;         // [hidden, inner]
  // Of kFp8, one for each row.
  const float* qkv_scales = nullptr;
  const float* output_scales = nullptr;
  const float* gate_up_scales = nullptr;
  const float* down_scales = nullptr;
  int64_t layer_bytes = 0;
};

struct DecoderTensors {
  const float* residual = nullptr;  // [rows, hidden]
  int rows = 0;                     // 1 .. kMaxDecoderRows
  // [rows], of each token within its sequence, whose tokens are neighbours: row r may look at rows
  // r - positions[r] to r.
  const int32_t* positions = nullptr;
  const float* rope_table = nullptr;  // MakeRopeTable()'s
  // What is asked for: row i of `out` [num_pooled, hidden] is what the layers make of row
  // pooled_rows[i] of the residual.
  const int32_t* pooled_rows = nullptr;
  int num_pooled = 0;
  float* out = nullptr;
  // Of DecoderWorkspaceBytes(), aligned to 256 bytes, zero before the first call. Calls leave it
  // fit for the next one; those that may overlap in time need workspaces of their own.
  void* workspace = nullptr;
};

// Whether the current device runs DecoderPass() for this shape.
cudaError_t DecoderPassIsSupported(const DecoderShape& shape, bool* is_supported);

size_t DecoderWorkspaceBytes(const DecoderShape& shape);

// Per layer, with sums, residual, norms and softmax in F32, and products' operands of `type`, to
// which weights are widened exactly, or for int4 as ExpandInt4() does:
//   x += output(attention(rope(norm(q)), rope(norm(k)), v)) on q, k, v = qkv(norm(x))
//   x += down(silu(gate) * up)                              on gate, up = gate_up(norm(x))
// A norm's factor of each row is applied to the product's sums, and its operand takes the factor of
// the norm before in its place; of FP16, a sixteenth of it, so that a row may grow 16 times as much
// from one norm to the next before it overflows. What is not finite stays within its sequence.
//
// Takes every multiprocessor of the device: its blocks wait for each other, so work on other
// streams delays it but must not wait for it. cudaErrorInvalidValue for what is outside of the
// contract, cudaErrorNotSupported where DecoderPassIsSupported() says no.
cudaError_t DecoderPass(const DecoderShape& shape, const DecoderWeights& weights,
                        const DecoderTensors& tensors, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_DECODER_PASS_H_
