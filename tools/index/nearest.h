// The vectors of a file that are nearest to some others, exactly.
#ifndef QUIVER_TOOLS_INDEX_NEAREST_H_
#define QUIVER_TOOLS_INDEX_NEAREST_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu/thread_pool.h"
#include "tools/index/vector_file.h"

namespace quiver::index {

enum class Similarity {
  // Rows of any length, such as int8 without their scales.
  kCosine,
  // The sum of products; of int8 that of the stored integers.
  kInnerProduct,
};

struct Neighbour {
  uint64_t row = 0;
  float score = 0;
};

// The `top` rows of highest score for each of `queries` [n, dimensions], best first, equal scores
// in the order of rows; fewer if the file has fewer. Every row is looked at, once for all queries,
// in blocks: memory beside the mapped file does not grow with it. DATA_LOSS names a row that is not
// finite, or of length zero where the cosine is asked for. `pool` may be null.
absl::StatusOr<std::vector<std::vector<Neighbour>>> FindNearest(const VectorFile& file,
                                                                absl::Span<const float> queries,
                                                                Similarity similarity, int top,
                                                                cpu::ThreadPool* pool);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_NEAREST_H_
