// From mapped files to the device: several threads, each through pinned memory of its own.
#ifndef QUIVER_ENGINE_RUN_CUDA_WEIGHT_LOADER_H_
#define QUIVER_ENGINE_RUN_CUDA_WEIGHT_LOADER_H_

#include <cstddef>

#include "absl/status/status.h"
#include "engine/model/weights.h"
#include "engine/run/cuda/weight_layout.h"

namespace quiver {

// Fills the layout's pieces at `block`, on the current device; returns when all is there. Values
// are rounded to nearest even. The mapped pages of what was read are given back.
absl::Status LoadWeights(const WeightLayout& layout, const Weights& weights, std::byte* block);

// The same with random values, the same ones each time, made on the device.
absl::Status MakeRandomWeights(const WeightLayout& layout, std::byte* block);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_WEIGHT_LOADER_H_
