#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/cuda/hopper_matmul.h"

namespace quiver {
namespace {

constexpr HopperMatmulTile kPlainTiles[] = {{256, 2}, {160, 2}, {256, 1}, {160, 1}};
constexpr HopperMatmulTile kSwiGluTiles[] = {{256, 2}, {240, 2}, {192, 2}, {160, 2}, {128, 2},
                                             {256, 1}, {240, 1}, {192, 1}, {160, 1}, {128, 1}};
constexpr HopperMatmulTile kRopeTiles[] = {{256, 2}, {128, 2}, {256, 1}, {128, 1}};

constexpr int64_t kTileRows = 128;
// Pairs of blocks win by the traffic that they save, single ones by starting sooner.
constexpr int64_t kLeastRowsOfPairs = 768;
constexpr int64_t kMostRowsOfSingles = 1536;
constexpr size_t kMostLikely = 5;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::span<const HopperMatmulTile> HopperMatmulTiles(MatmulEpilogue epilogue) {
  switch (epilogue) {
    case MatmulEpilogue::kSwiGlu:
      return kSwiGluTiles;
    case MatmulEpilogue::kQkNormRope:
      return kRopeTiles;
    default:
      return kPlainTiles;
  }
}

std::vector<HopperMatmulTile> LikelyHopperMatmulTiles(MatmulEpilogue epilogue, int64_t rows,
                                                      int64_t out_features, int multiprocessors) {
  // What a tile takes beside its columns, in columns.
  constexpr int64_t kTileCost = 12;
  std::vector<std::pair<int64_t, HopperMatmulTile>> costs;
  for (const HopperMatmulTile& tile : HopperMatmulTiles(epilogue)) {
    if (tile.cluster_blocks == 2 ? rows < kLeastRowsOfPairs : rows > kMostRowsOfSingles) continue;
    const int64_t clusters = std::max(1, multiprocessors / tile.cluster_blocks);
    const int64_t tiles =
        CeilDivide(rows, kTileRows * tile.cluster_blocks) * CeilDivide(out_features, tile.columns);
    costs.emplace_back(CeilDivide(tiles, clusters) * (tile.columns + kTileCost), tile);
  }
  std::stable_sort(costs.begin(), costs.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<HopperMatmulTile> likely;
  for (const auto& [cost, tile] : costs) {
    if (likely.size() < kMostLikely) likely.push_back(tile);
  }
  return likely;
}

}  // namespace quiver
