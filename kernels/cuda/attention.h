// Softmax attention over packed sequences of different lengths, on the device.
//
//   out[i, h] = sum_j softmax_j(scale * <q[i, h], k[j, g]>) v[j, g],   g = h / (num_heads /
//   num_kv_heads)
//
// where j runs over the keys of i's own sequence, and for causal attention only over positions up
// to i's. Inputs and output are BF16 or FP16; scores, softmax and accumulation are F32.
//
// A caller lists the query rows it wants (AttentionRows: any run of rows of any sequence),
// PlanAttention() cuts them into tiles and groups the tiles into launches of bounded work, and
// Attention() runs one launch. A pass is thus resumable between launches, and a chunk of a long
// sequence's queries may run against all of its keys.
//
// Deterministic and batch-invariant: a query row's result depends on its own sequence alone, bit
// for bit, as long as its rows are asked for from multiples of kAttentionTileRows positions (or as
// the same run each time). Each tile is computed by one thread block in a fixed order of keys, and
// the kernel is chosen by the length of the sequence, never by what shares the batch.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_H_
#define QUIVER_KERNELS_CUDA_ATTENTION_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/half_type.h"

namespace quiver {

using AttentionType = HalfType;

// Portable: mma.sync, sm_80 and up. Hopper: wgmma and the tensor copy engine, sm_90a alone, for
// head_dim 128; every other shape falls back to the portable kernels within the same plan.
enum class AttentionPath { kPortable, kHopper };

struct AttentionShape {
  int num_heads = 0;
  int num_kv_heads = 0;  // divides num_heads
  int head_dim = 0;      // 32, 64 or 128
  bool causal = false;
  AttentionType type = AttentionType::kBf16;
};

// Queries [q_position, q_position + num_rows) of a sequence of kv_rows keys. `q_row` is the row of
// the first of them in q and out, `kv_row` the row of the sequence's first key in k and v.
struct AttentionRows {
  int32_t q_row = 0;
  int32_t q_position = 0;
  int32_t num_rows = 0;
  int32_t kv_row = 0;
  int32_t kv_rows = 0;
};

// A run of at most kAttentionTileRows rows: what one thread block computes for one head. Tiles
// without rows come last in a launch, and are skipped.
using AttentionTile = AttentionRows;
inline constexpr int kAttentionTileRows = 128;

// Sequences of up to this many keys take the short kernel, whose tile has 64 rows.
inline constexpr int kAttentionShortRows = 128;

enum class AttentionKernel { kShort, kPortable, kHopper };

// One launch: tiles [first_tile, first_tile + num_tiles) of the plan, for query heads [first_head,
// first_head + num_heads), which are all those of some key heads.
struct AttentionLaunch {
  AttentionKernel kernel = AttentionKernel::kShort;
  int32_t first_tile = 0;
  int32_t num_tiles = 0;
  int32_t first_head = 0;
  int32_t num_heads = 0;
  int32_t max_kv_rows = 0;  // of the tiles' sequences
  double flop = 0;          // 4 * head_dim for each head and each visible pair of query and key
};

struct AttentionPlan {
  std::vector<AttentionTile> tiles;  // copy them to the device, in this order
  std::vector<AttentionLaunch> launches;
};

struct AttentionPlanOptions {
  // The most work in one launch (flop as above; at least one tile for one key head); 0 for no
  // limit. Heads are dealt to launches first: each then has tiles of every length, short ones to
  // fill up its end, and few keys, which stay in the cache. Where one key head is too much, tiles
  // are dealt too, so that each launch has its share of long and short ones.
  double max_launch_flop = 0;
  // For graphs: if not 0, the plan has the same launches for whatever rows fit in this many rows
  // and sequences, filled up with tiles without rows.
  int padded_rows = 0;
  int padded_sequences = 0;
};

// The best path of the current device.
cudaError_t BestAttentionPath(AttentionPath* path);

// Longest tiles first, so that the last blocks to run are the short ones. Host only; the cost is
// that of sorting the tiles. `rows` with num_rows 0 are ignored.
AttentionPlan PlanAttention(const AttentionShape& shape, AttentionPath path,
                            const std::vector<AttentionRows>& rows,
                            const AttentionPlanOptions& options);

// Device pointers; q, k, v and out are aligned to 16 bytes, and the strides, in elements from one
// row to the next, are multiples of 8 (q, k and v may be columns of one buffer). The heads of a row
// are contiguous. `out` may be `q` itself, with the same stride.
struct AttentionTensors {
  const void* q = nullptr;  // [q_rows, num_heads, head_dim]
  const void* k = nullptr;  // [kv_rows, num_kv_heads, head_dim]
  const void* v = nullptr;
  void* out = nullptr;  // [q_rows, num_heads, head_dim]
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t out_stride = 0;
  int32_t q_rows = 0;  // rows that may be read; those outside of the tiles do not matter
  int32_t kv_rows = 0;
  const AttentionTile* tiles = nullptr;
  // Two counters, zero before the first launch; every launch leaves them zero. Launches that may
  // overlap in time need counters of their own.
  int32_t* counters = nullptr;
};

// Runs one launch of a plan made for the same shape. cudaErrorInvalidValue for a shape, stride or
// alignment outside of the contract, or a launch of Hopper's kernel elsewhere.
cudaError_t Attention(const AttentionShape& shape, const AttentionLaunch& launch,
                      const AttentionTensors& tensors, float scale, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_H_
