// Tensors of a checkpoint in the forms that the CPU kernels take.
#ifndef QUIVER_ENGINE_RUN_CPU_WEIGHTS_H_
#define QUIVER_ENGINE_RUN_CPU_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/linear_weight.h"
#include "engine/model/model_config.h"
#include "engine/model/quantization_config.h"
#include "engine/model/weights.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

cpu::Activation CpuActivation(Activation activation);

// Reads tensors by name and remembers the first error; after one, everything it returns is empty.
class CpuWeightReader {
 public:
  // Every name is looked up with `prefix` before it. Linears are stored as `quantization` says. All
  // must outlive this.
  CpuWeightReader(const Weights& weights, std::string prefix,
                  const QuantizationConfig& quantization, cpu::ThreadPool* pool)
      : weights_(weights), prefix_(std::move(prefix)), quantization_(quantization), pool_(pool) {}

  // A vector, widened.
  std::vector<float> Vector(const std::string& name, int64_t n);
  // Vectors one after another.
  std::vector<float> Vectors(const std::vector<std::string>& names, const std::vector<int64_t>& n);

  struct Part {
    // Of its weight, "layers.0.mlp.up_proj.weight".
    std::string name;
    int64_t n = 0;
  };
  // Linears' weights [n, k] one under another, packed. Quantized ones stay codes where all are
  // quantized alike, else become floats. The mapped pages are dropped.
  cpu::PackedMatrix Matrix(const std::vector<Part>& parts, int64_t k);
  cpu::PackedMatrix GatedMatrix(const Part& gate, const Part& up, int64_t k);

  // A table that stays in the map.
  cpu::EmbeddingTable Table(const std::string& name, int64_t rows, int64_t dim);

  const absl::Status& status() const { return status_; }

 private:
  // The tensor, which must be stored as floats of 16 or 32 bits.
  absl::StatusOr<TensorView> Find(const std::string& name, absl::Span<const int64_t> shape);
  std::vector<LinearWeight> FindLinears(const std::vector<Part>& parts, int64_t k);
  void DropPages(const std::vector<LinearWeight>& linears);

  const Weights& weights_;
  std::string prefix_;
  const QuantizationConfig& quantization_;
  cpu::ThreadPool* pool_;
  absl::Status status_;
};

// "" or `prefix`, whichever stands before `name` in the checkpoint; NOT_FOUND names both.
absl::StatusOr<std::string> FindPrefix(const Weights& weights, const std::string& prefix,
                                       const std::string& name);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CPU_WEIGHTS_H_
