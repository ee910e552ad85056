#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cuda/quantized_few_rows_kernels.h"

namespace quiver {

QuantizedSplit ChooseQuantizedSplit(const QuantizedUnit& unit, int64_t n, int64_t k, int64_t rows,
                                    int multiprocessors) {
  // Microseconds of an H100 for what a cluster takes to come up and to add up its sums. With those
  // of int4's unit fitted to Qwen3-4B's four weights one after another, at 1 to 64 rows.
  struct Cluster {
    int blocks;
    double us;
  };
  constexpr Cluster kClusters[] = {{1, 0}, {2, 2.5}, {4, 4.2}, {8, 5.5}};
  // Clusters that need nearly every multiprocessor at once wait for each other.
  const int64_t blocks_at_once = multiprocessors * (rows <= 32 ? 2 : 1);
  const auto places = std::max<int64_t>(1, blocks_at_once * 93 / 100);
  const int64_t panels = QuantizedPanels(n);
  const int64_t units = QuantizedUnits(k);
  QuantizedSplit best;
  double best_us = std::numeric_limits<double>::max();
  for (const Cluster& cluster : kClusters) {
    for (int some = 1; some <= unit.max_panels; ++some) {
      const int64_t blocks = (panels + some - 1) / some * cluster.blocks;
      const int64_t rounds = (blocks + places - 1) / places;
      const int64_t block_units = (units + cluster.blocks - 1) / cluster.blocks;
      const int64_t shared_by = (blocks + multiprocessors - 1) / multiprocessors;
      const double us = unit.wait_us * static_cast<double>(rounds * block_units * (some + 1)) +
                        unit.read_us * static_cast<double>(shared_by * block_units * some) +
                        cluster.us;
      if (us < best_us) {
        best_us = us;
        best = {cluster.blocks, some};
      }
    }
  }
  return best;
}

cudaError_t HopperMultiprocessors(int* multiprocessors) {
  int device = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  if (major != 9) return cudaErrorNotSupported;
  return cudaDeviceGetAttribute(multiprocessors, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace quiver
