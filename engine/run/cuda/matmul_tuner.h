// Chooses algorithms for a model's products by measuring them.
#ifndef QUIVER_ENGINE_RUN_CUDA_MATMUL_TUNER_H_
#define QUIVER_ENGINE_RUN_CUDA_MATMUL_TUNER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/run/cuda/matmul.h"
#include "engine/run/cuda/matmul_cache.h"

namespace quiver {

// A product that a model runs, with the matrices of its layers: run one after another, as in a
// pass, so that none is found in the cache that would not be there in a pass.
struct MatmulCase {
  MatmulOperands operands;           // of as many rows as there may be
  std::vector<const void*> weights;  // of the operands' form
};

// The cases of one product, of which `layers` are the operands in each layer: one for each form
// that its weights have.
std::vector<MatmulCase> CasesOf(const std::vector<MatmulOperands>& layers);

// For each case and each bucket of rows up to its operands', takes what `cache` has or measures and
// puts it there; tells `matmul`. What `x` points to must not be zeros: products of zeros are
// faster. Overwrites what `out` points to.
absl::Status TuneMatmuls(const std::vector<MatmulCase>& cases, MatmulScratch scratch,
                         Matmul* matmul, MatmulCache* cache);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_MATMUL_TUNER_H_
