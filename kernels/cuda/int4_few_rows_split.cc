#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cuda/int4_few_rows_kernels.h"

namespace quiver {

Int4Split ChooseInt4Split(int64_t n, int64_t k, int64_t rows, int multiprocessors) {
  // Microseconds of an H100: for a unit of W or of x that a block waits for, for a unit of W that a
  // multiprocessor reads, and for what a cluster takes to come up and to add up its sums. Fitted to
  // Qwen3-4B's four weights one after another, at 1 to 64 rows.
  constexpr double kWaitUs = 0.12;
  constexpr double kReadUs = 0.03;
  struct Cluster {
    int blocks;
    double us;
  };
  constexpr Cluster kClusters[] = {{1, 0}, {2, 2.5}, {4, 4.2}, {8, 5.5}};
  // Clusters that need nearly every multiprocessor at once wait for each other.
  const int64_t blocks_at_once = multiprocessors * (rows <= 32 ? 2 : 1);
  const auto places = std::max<int64_t>(1, blocks_at_once * 93 / 100);
  const int64_t panels = Int4Panels(n);
  const int64_t units = Int4Units(k);
  Int4Split best;
  double best_us = std::numeric_limits<double>::max();
  for (const Cluster& cluster : kClusters) {
    for (int some = 1; some <= kMaxInt4SplitPanels; ++some) {
      const int64_t blocks = (panels + some - 1) / some * cluster.blocks;
      const int64_t rounds = (blocks + places - 1) / places;
      const int64_t block_units = (units + cluster.blocks - 1) / cluster.blocks;
      const int64_t shared_by = (blocks + multiprocessors - 1) / multiprocessors;
      const double us = kWaitUs * static_cast<double>(rounds * block_units * (some + 1)) +
                        kReadUs * static_cast<double>(shared_by * block_units * some) + cluster.us;
      if (us < best_us) {
        best_us = us;
        best = {cluster.blocks, some};
      }
    }
  }
  return best;
}

}  // namespace quiver
