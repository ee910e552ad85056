// Random values for the tensors of a model, so that engines can be measured and compared without a
// trained checkpoint.
//
// Values are (nearly) normal and scaled so that a model of any depth behaves as a trained one does
// where it matters to arithmetic:
//   - a Linear keeps the variance of what passes through it (deviation 1/sqrt(inputs), 0.02 at 2560
//     inputs), and the last Linear of a branch is smaller by sqrt(2 * layers), so that all branches
//     together weigh about as much as the embedding (deviation 1) and the residual stream stays
//     within BF16's and FP16's comfort;
//   - a token's attention scores have a deviation of 3: among 32K keys a handful count. With
//     flatter scores the attention of long inputs averages to nothing, and a wrong one would not
//     show in a vector; with sharper ones rounding errors grow from layer to layer.
// Norms are near 1, biases near 0.
#ifndef QUIVER_ENGINE_MODEL_RANDOM_WEIGHTS_H_
#define QUIVER_ENGINE_MODEL_RANDOM_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "engine/model/weights.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

// The values of one model. An element depends on the seed, its tensor's name and its index alone:
// not on threads, not on other tensors, and on the number of layers only by its scale.
class RandomTensors {
 public:
  // `dtype` is kF32, kF16 or kBF16: INVALID_ARGUMENT for another.
  static absl::StatusOr<RandomTensors> Create(const ModelConfig& config, DType dtype,
                                              uint64_t seed);

  DType dtype() const { return dtype_; }
  int64_t SizeBytes(const ModelTensor& tensor) const {
    return tensor.num_elements() * static_cast<int64_t>(DTypeSize(dtype_));
  }

  // Writes elements [begin, begin + count) of `tensor` to `out`, which is aligned to an element.
  void Fill(const ModelTensor& tensor, int64_t begin, int64_t count, std::byte* out,
            cpu::ThreadPool* pool) const;

 private:
  RandomTensors(int num_layers, DType dtype, uint64_t seed)
      : num_layers_(num_layers), dtype_(dtype), seed_(seed) {}

  int num_layers_;
  DType dtype_;
  uint64_t seed_;
};

// All tensors of `config` in host memory. RESOURCE_EXHAUSTED if that cannot be had.
absl::StatusOr<std::shared_ptr<const Weights>> RandomWeights(const ModelConfig& config, DType dtype,
                                                             uint64_t seed, cpu::ThreadPool* pool);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_RANDOM_WEIGHTS_H_
