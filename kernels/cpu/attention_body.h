// AttentionKernel for an instruction set.
//
// Scores are kept key by key, a vector of queries each, so that maximum, exponential and sum over
// keys need no step across lanes, and a query's lane has no say in another's. A block of keys and
// values is copied out of its matrix, whose rows may lie a page apart, and then serves all tiles of
// the task from the second-level cache.
#ifndef QUIVER_KERNELS_CPU_ATTENTION_BODY_H_
#define QUIVER_KERNELS_CPU_ATTENTION_BODY_H_

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/simd_tile.h"

namespace quiver::cpu {

template <typename Set>
struct AttentionBody {
  using Vec = typename Set::Vec;

  static constexpr float kMinusInfinity = -__builtin_inff();

  // Where a tile keeps its state.
  struct Tile {
    // [head_dim, kLanes], scaled.
    float* query;
    // [kLanes, padded head_dim]
    float* sums;
    // [kLanes] each; `rescale` is what the block at hand makes of the sums before it.
    float* max;
    float* weight_sum;
    float* rescale;
    const float* q;
    float* out;
    // Queries in use, and the keys that the first of them sees.
    int queries;
    int64_t visible;
  };

  static Tile TileAt(const AttentionArgs& args, const AttentionTask& task, int64_t index) {
    const int64_t per_head = AttentionTiles(task.queries);
    const int64_t head = index / per_head;
    const int64_t first = index % per_head * kLanes;
    Tile tile;
    tile.query = task.scratch + kAttentionBlock * (2 * PaddedHeadDim(args.head_dim) + kLanes) +
                 index * AttentionTileFloats(args.head_dim);
    tile.sums = tile.query + kLanes * args.head_dim;
    tile.max = tile.sums + kLanes * PaddedHeadDim(args.head_dim);
    tile.weight_sum = tile.max + kLanes;
    tile.rescale = tile.weight_sum + kLanes;
    tile.q = task.q + first * args.q_stride + head * args.head_dim;
    tile.out = task.out + first * args.out_stride + head * args.head_dim;
    const int64_t left = task.queries - first;
    tile.queries = left < kLanes ? static_cast<int>(left) : kLanes;
    tile.visible = task.visible + first * task.visible_step;
    return tile;
  }

  static void Start(const AttentionArgs& args, const Tile& tile) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float* q = tile.q + lane * args.q_stride;
      const bool used = lane < tile.queries;
      for (int i = 0; i < args.head_dim; ++i) {
        tile.query[i * kLanes + lane] = used ? q[i] * args.scale : 0.0f;
      }
    }
    const int64_t sums = kLanes * PaddedHeadDim(args.head_dim);
    for (int64_t i = 0; i < sums; ++i) tile.sums[i] = 0.0f;
    Vec::Set1(kMinusInfinity).Store(tile.max);
    Vec::Set1(0.0f).Store(tile.weight_sum);
  }

  // Rows of `dim` floats to rows of `to_stride`, zeros after them.
  static void Copy(const float* from, int64_t from_stride, int64_t rows, int64_t dim, float* to,
                   int64_t to_stride) {
    for (int64_t row = 0; row < rows; ++row, from += from_stride, to += to_stride) {
      int64_t i = 0;
      for (; i + kLanes <= dim; i += kLanes) Vec::Load(from + i).Store(to + i);
      if (i < dim) Vec::LoadPartial(from + i, static_cast<int>(dim - i)).Store(to + i);
    }
  }

  // Keys, or values, [first, first + count) of a sequence, whose first `prefix` lie at `before`.
  static void CopyBlock(const float* before, int64_t before_stride, int64_t prefix,
                        const float* after, int64_t after_stride, int64_t first, int64_t count,
                        int64_t dim, float* to, int64_t to_stride) {
    int64_t head = prefix - first;
    if (head > 0) {
      head = head < count ? head : count;
      Copy(before + first * before_stride, before_stride, head, dim, to, to_stride);
    } else {
      head = 0;
    }
    Copy(after + (first + head - prefix) * after_stride, after_stride, count - head, dim,
         to + head * to_stride, to_stride);
  }

  // Calls function.template operator()<kRows>(row) for rows [0, rows), kTileRows at a time and the
  // rest at once.
  template <typename Function>
  static QUIVER_INLINE void ForTileRows(int64_t rows, const Function& function) {
    int64_t row = 0;
    for (; row + Set::kTileRows <= rows; row += Set::kTileRows) {
      function.template operator()<Set::kTileRows>(row);
    }
    RestOfRows<Set::kTileRows - 1>(row, rows - row, function);
  }
  template <int kRows, typename Function>
  static QUIVER_INLINE void RestOfRows(int64_t row, int64_t rows, const Function& function) {
    if constexpr (kRows > 0) {
      if (rows == kRows) {
        function.template operator()<kRows>(row);
      } else {
        RestOfRows<kRows - 1>(row, rows, function);
      }
    }
  }

  // scores [count, kLanes] = keys . queries
  static void Score(const float* keys, int64_t key_stride, int64_t count, int head_dim,
                    const float* query, float* scores) {
    ForTileRows(count, [&]<int kRows>(int64_t key) {
      Vec sums[kRows][1];
      ClearTile(sums);
      AccumulateTile(TileRows{keys + key * key_stride, key_stride, 1},
                     TilePanels<float>{query, 0, kLanes}, head_dim, sums);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r][0].Store(scores + (key + r) * kLanes);
    });
  }

  // Takes from view the keys that queries do not see; `visible` counts those of this block that the
  // first one sees, less than one where it sees none.
  static void Mask(int64_t visible, int queries, int64_t count, float* scores) {
    for (int lane = 0; lane < queries; ++lane) {
      for (int64_t key = visible + lane < 0 ? 0 : visible + lane; key < count; ++key) {
        scores[key * kLanes + lane] = kMinusInfinity;
      }
    }
  }

  // Scores become weights e^(score - max), and the tile's maxima and sums take them in.
  static void Weigh(const Tile& tile, int64_t count, float* scores) {
    const Vec old_max = Vec::Load(tile.max);
    Vec max = old_max;
    for (int64_t key = 0; key < count; ++key) max = Vec::Max(max, Vec::Load(scores + key * kLanes));
    Vec sum = Vec::Set1(0.0f);
    for (int64_t key = 0; key < count; ++key) {
      const Vec weight = Exp(Vec::Load(scores + key * kLanes) - max);
      weight.Store(scores + key * kLanes);
      sum = sum + weight;
    }
    const Vec rescale = Exp(old_max - max);
    Vec::Fma(Vec::Load(tile.weight_sum), rescale, sum).Store(tile.weight_sum);
    max.Store(tile.max);
    rescale.Store(tile.rescale);
  }

  // sums = sums * rescale + weights . values
  static void AddValues(const Tile& tile, const float* weights, const float* values,
                        int64_t value_stride, int64_t count) {
    ForTileRows(tile.queries, [&]<int kRows>(int64_t query) {
      for (int64_t column = 0; column < value_stride; column += kLanes) {
        Vec sums[kRows][1];
        ClearTile(sums);
        AccumulateTile(TileRows{weights + query, 1, kLanes},
                       TilePanels<float>{values + column, 0, value_stride}, count, sums);
        float* out = tile.sums + query * value_stride + column;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r, out += value_stride) {
          Vec::Fma(Vec::Load(out), Vec::Set1(tile.rescale[query + r]), sums[r][0]).Store(out);
        }
      }
    });
  }

  static void Finish(const AttentionArgs& args, const Tile& tile) {
    const int64_t stride = PaddedHeadDim(args.head_dim);
    for (int query = 0; query < tile.queries; ++query) {
      const Vec sum = Vec::Set1(tile.weight_sum[query]);
      const float* sums = tile.sums + query * stride;
      float* out = tile.out + query * args.out_stride;
      for (int i = 0; i < args.head_dim; i += kLanes) {
        (Vec::Load(sums + i) / sum).StorePartial(out + i, args.head_dim - i);
      }
    }
  }

  static void Attend(const AttentionArgs& args, const AttentionTask& task) {
    const int64_t stride = PaddedHeadDim(args.head_dim);
    const int64_t tiles = AttentionTiles(task.queries) * task.heads;
    float* keys = task.scratch;
    float* values = keys + kAttentionBlock * stride;
    float* scores = values + kAttentionBlock * stride;
    for (int64_t t = 0; t < tiles; ++t) Start(args, TileAt(args, task, t));

    const int64_t end = task.visible + (task.queries - 1) * task.visible_step;
    for (int64_t first = 0; first < end; first += kAttentionBlock) {
      const int64_t block = end - first < kAttentionBlock ? end - first : kAttentionBlock;
      CopyBlock(task.prefix_k, args.prefix_stride, task.prefix, task.k, args.k_stride, first, block,
                args.head_dim, keys, stride);
      CopyBlock(task.prefix_v, args.prefix_stride, task.prefix, task.v, args.v_stride, first, block,
                args.head_dim, values, stride);
      for (int64_t t = 0; t < tiles; ++t) {
        const Tile tile = TileAt(args, task, t);
        const int64_t seen = tile.visible + (tile.queries - 1) * task.visible_step - first;
        if (seen <= 0) continue;
        const int64_t count = seen < block ? seen : block;
        Score(keys, stride, count, args.head_dim, tile.query, scores);
        if (task.visible_step > 0) Mask(tile.visible - first, tile.queries, count, scores);
        Weigh(tile, count, scores);
        AddValues(tile, scores, values, stride, count);
      }
    }
    for (int64_t t = 0; t < tiles; ++t) Finish(args, TileAt(args, task, t));
  }

  static constexpr AttentionKernel kKernel = {Attend};
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ATTENTION_BODY_H_
