#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/cuda/attention.h"

namespace quiver {
namespace {

constexpr int kShortTileRows = 64;

int32_t VisibleKeys(const AttentionTile& tile, bool causal) {
  return causal ? std::min(tile.kv_rows, tile.q_position + tile.num_rows) : tile.kv_rows;
}

double TileFlop(const AttentionShape& shape, const AttentionTile& tile) {
  double pairs = static_cast<double>(tile.num_rows) * tile.kv_rows;
  if (shape.causal) {
    pairs = static_cast<double>(tile.num_rows) * tile.q_position +
            0.5 * tile.num_rows * (tile.num_rows + 1.0);
  }
  return 4.0 * shape.head_dim * shape.num_heads * pairs;
}

void AppendTiles(const AttentionRows& rows, int tile_rows, std::vector<AttentionTile>* tiles) {
  for (int32_t done = 0; done < rows.num_rows; done += tile_rows) {
    AttentionTile tile = rows;
    tile.q_row += done;
    tile.q_position += done;
    tile.num_rows = std::min(rows.num_rows - done, tile_rows);
    tiles->push_back(tile);
  }
}

// Deals `tiles`, sorted longest first, to `count` parts: forwards, then backwards, so that the
// parts' sums are near each other and each stays sorted.
std::vector<AttentionTile> DealtTiles(const std::vector<AttentionTile>& tiles, size_t part,
                                      size_t count) {
  std::vector<AttentionTile> dealt;
  for (size_t begin = 0; begin < tiles.size(); begin += count) {
    const size_t round = begin / count;
    const size_t index = begin + (round % 2 == 0 ? part : count - 1 - part);
    if (index < tiles.size()) dealt.push_back(tiles[index]);
  }
  return dealt;
}

void AppendLaunches(const AttentionShape& shape, AttentionKernel kernel, double max_flop,
                    const std::vector<AttentionTile>& tiles, AttentionPlan* plan) {
  if (tiles.empty()) return;
  double total = 0;
  for (const AttentionTile& tile : tiles) total += TileFlop(shape, tile);
  const double wanted = max_flop > 0 ? std::ceil(total / max_flop) : 1;
  int head_parts = 1;
  while (head_parts < shape.num_kv_heads &&
         (head_parts < wanted || shape.num_kv_heads % head_parts != 0)) {
    ++head_parts;
  }
  const auto tile_parts = static_cast<size_t>(
      std::clamp(std::ceil(wanted / head_parts), 1.0, static_cast<double>(tiles.size())));
  for (size_t part = 0; part < tile_parts; ++part) {
    AttentionLaunch launch;
    launch.kernel = kernel;
    launch.first_tile = static_cast<int32_t>(plan->tiles.size());
    launch.num_heads = shape.num_heads / head_parts;
    for (const AttentionTile& tile : DealtTiles(tiles, part, tile_parts)) {
      plan->tiles.push_back(tile);
      launch.max_kv_rows = std::max(launch.max_kv_rows, tile.kv_rows);
      launch.flop += TileFlop(shape, tile) / head_parts;
      ++launch.num_tiles;
    }
    for (; launch.first_head < shape.num_heads; launch.first_head += launch.num_heads) {
      plan->launches.push_back(launch);
    }
  }
}

void AppendPadded(const AttentionShape& shape, AttentionKernel kernel, int32_t num_tiles,
                  const std::vector<AttentionTile>& tiles, AttentionPlan* plan) {
  if (num_tiles <= 0) return;
  AttentionLaunch launch;
  launch.kernel = kernel;
  launch.first_tile = static_cast<int32_t>(plan->tiles.size());
  launch.num_tiles = num_tiles;
  launch.num_heads = shape.num_heads;
  for (const AttentionTile& tile : tiles) {
    launch.max_kv_rows = std::max(launch.max_kv_rows, tile.kv_rows);
    launch.flop += TileFlop(shape, tile);
  }
  plan->tiles.insert(plan->tiles.end(), tiles.begin(), tiles.end());
  plan->tiles.resize(static_cast<size_t>(launch.first_tile) + num_tiles);
  plan->launches.push_back(launch);
}

}  // namespace

AttentionPlan PlanAttention(const AttentionShape& shape, AttentionPath path,
                            const std::vector<AttentionRows>& rows,
                            const AttentionPlanOptions& options) {
  std::vector<AttentionTile> short_tiles;
  std::vector<AttentionTile> long_tiles;
  for (const AttentionRows& run : rows) {
    const bool is_short = run.kv_rows <= kAttentionShortRows;
    AppendTiles(run, is_short ? kShortTileRows : kAttentionTileRows,
                is_short ? &short_tiles : &long_tiles);
  }
  for (std::vector<AttentionTile>* tiles : {&short_tiles, &long_tiles}) {
    std::stable_sort(tiles->begin(), tiles->end(),
                     [&](const AttentionTile& a, const AttentionTile& b) {
                       return VisibleKeys(a, shape.causal) > VisibleKeys(b, shape.causal);
                     });
  }
  const AttentionKernel long_kernel = path == AttentionPath::kHopper && shape.head_dim == 128
                                          ? AttentionKernel::kHopper
                                          : AttentionKernel::kPortable;

  AttentionPlan plan;
  if (options.padded_rows > 0) {
    // A sequence of n rows has at most n / tile + 1 tiles, and a long one at least so many rows.
    const int long_sequences =
        std::min(options.padded_sequences, options.padded_rows / (kAttentionShortRows + 1));
    AppendPadded(
        shape, long_kernel,
        long_sequences == 0 ? 0 : options.padded_rows / kAttentionTileRows + long_sequences,
        long_tiles, &plan);
    AppendPadded(shape, AttentionKernel::kShort,
                 options.padded_rows / kShortTileRows + options.padded_sequences, short_tiles,
                 &plan);
    return plan;
  }
  AppendLaunches(shape, long_kernel, options.max_launch_flop, long_tiles, &plan);
  AppendLaunches(shape, AttentionKernel::kShort, options.max_launch_flop, short_tiles, &plan);
  return plan;
}

}  // namespace quiver
