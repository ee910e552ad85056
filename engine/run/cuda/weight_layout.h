// Where a model's weights lie in one block of device memory, and what each is made of.
#ifndef QUIVER_ENGINE_RUN_CUDA_WEIGHT_LAYOUT_H_
#define QUIVER_ENGINE_RUN_CUDA_WEIGHT_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/weights.h"
#include "engine/run/device_options.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {

// What one tensor becomes.
struct WeightPiece {
  TensorView source;  // without data where weights are random
  cpu::StoredType source_type = cpu::StoredType::kF32;
  int64_t offset = 0;  // bytes from the block's begin
  cpu::StoredType target_type = cpu::StoredType::kF32;
  int64_t count = 0;
  // Of random weights: uniform around `random_mean`, at most `random_range` off.
  float random_mean = 0;
  float random_range = 0;
};

// A table as it lies in the block.
struct TablePlace {
  int64_t offset = 0;
  cpu::StoredType type = cpu::StoredType::kF32;
};

// Gives each weight asked for a place, looks its tensor up, and remembers the first error.
class WeightLayout {
 public:
  // Every name is looked up with `prefix` before it; `weights` may be null, for random ones, and
  // must outlive this. Matrices become `type`.
  WeightLayout(const Weights* weights, std::string prefix, ComputeType type);

  struct Part {
    std::string name;
    int64_t rows = 0;
  };
  // Matrices [rows, k] one under another. As every other, the offset of the whole.
  int64_t Matrix(const std::vector<Part>& parts, int64_t k);
  // Vectors one after another, F32; of random ones, norms' are near 1.
  int64_t Vector(const std::vector<Part>& parts, bool is_norm);
  int64_t Vector(const std::string& name, int64_t n, bool is_norm);
  // A table stays in the type that it is stored in.
  TablePlace Table(const std::string& name, int64_t rows, int64_t dim);
  // Room that is filled by other means.
  int64_t Reserve(int64_t bytes);

  const absl::Status& status() const { return status_; }
  const std::vector<WeightPiece>& pieces() const { return pieces_; }
  int64_t bytes() const { return bytes_; }

 private:
  // A piece at `offset` but for its place, from tensor `name`.
  WeightPiece Find(const std::string& name, std::vector<int64_t> shape);

  const Weights* const weights_;
  const std::string prefix_;
  const cpu::StoredType matrix_type_;
  absl::Status status_;
  std::vector<WeightPiece> pieces_;
  int64_t bytes_ = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_WEIGHT_LAYOUT_H_
