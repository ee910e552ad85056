// Where a model's weights lie in one block of device memory, and what each is made of.
#ifndef QUIVER_ENGINE_RUN_CUDA_WEIGHT_LAYOUT_H_
#define QUIVER_ENGINE_RUN_CUDA_WEIGHT_LAYOUT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/linear_weight.h"
#include "engine/model/quantization_config.h"
#include "engine/model/weights.h"
#include "engine/run/cuda/weight_form.h"
#include "engine/run/device_options.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {

// What one tensor becomes.
struct WeightPiece {
  TensorView source;  // without data where weights are random, or there is `linear`
  // Where the checkpoint is quantized: what a part of a matrix is made from.
  std::shared_ptr<const LinearWeight> linear;
  cpu::StoredType source_type = cpu::StoredType::kF32;
  int64_t offset = 0;  // bytes from the block's begin
  cpu::StoredType target_type = cpu::StoredType::kF32;
  int64_t count = 0;
  // Of a part of a matrix: how it lies there, and its columns. Scales have the target type.
  WeightForm form;
  int64_t k = 0;
  int64_t scales_offset = 0;  // where the form has row scales
  // Of random weights: uniform around `random_mean`, at most `random_range` off.
  float random_mean = 0;
  float random_range = 0;
};

// A table as it lies in the block.
struct TablePlace {
  int64_t offset = 0;
  cpu::StoredType type = cpu::StoredType::kF32;
};

// A matrix as it lies in the block.
struct MatrixPlace {
  int64_t offset = 0;
  WeightForm form;
  int64_t scales_offset = 0;  // where the form has row scales
};

// Gives each weight asked for a place, looks its tensor up, and remembers the first error.
class WeightLayout {
 public:
  // Every name is looked up with `prefix` before it; `weights` may be null, for random ones, and
  // must outlive this, as `quantization` must, which may be null where nothing is quantized.
  // Matrices become `type`, or of int4 or, if `takes_fp8`, of FP8 where products take them so;
  // random ones `random_form`. `activation` tells which get FP8 inputs.
  WeightLayout(const Weights* weights, std::string prefix, ComputeType type,
               const QuantizationConfig* quantization = nullptr, bool takes_fp8 = false,
               WeightForm random_form = {}, ActivationType activation = ActivationType::kAuto);

  struct Part {
    std::string name;
    int64_t rows = 0;
  };
  // Matrices [rows, k] one under another, of one form.
  MatrixPlace Matrix(const std::vector<Part>& parts, int64_t k);
  // As every other, the offset of the whole. Vectors one after another, F32; of random ones, norms'
  // are near 1.
  int64_t Vector(const std::vector<Part>& parts, bool is_norm);
  int64_t Vector(const std::string& name, int64_t n, bool is_norm);
  // A table stays in the type that it is stored in.
  TablePlace Table(const std::string& name, int64_t rows, int64_t dim);
  // Room that is filled by other means.
  int64_t Reserve(int64_t bytes);

  const absl::Status& status() const { return status_; }
  const std::vector<WeightPiece>& pieces() const { return pieces_; }
  int64_t bytes() const { return bytes_; }
  // The most that a matrix takes in the form it is multiplied in, where that is not its own; 0 if
  // it is for all.
  int64_t expanded_bytes() const { return expanded_bytes_; }
  // What all take that are always multiplied so where there are many rows.
  int64_t all_expanded_bytes() const { return all_expanded_bytes_; }
  // The most columns of one with FP8 inputs; 0 if none has.
  int64_t fp8_columns() const { return fp8_columns_; }

 private:
  // A piece at `offset` but for its place, from tensor `name`.
  WeightPiece Find(const std::string& name, std::vector<int64_t> shape);
  // Of a quantized checkpoint's; empty after an error.
  std::vector<std::shared_ptr<const LinearWeight>> FindLinears(const std::vector<Part>& parts,
                                                               int64_t k);
  WeightForm FormOf(const LinearWeight& linear) const;
  // Which all of the parts can have, but for inputs. `linears` is empty where nothing is quantized.
  WeightForm FormOf(const std::vector<Part>& parts, int64_t k,
                    const std::vector<std::shared_ptr<const LinearWeight>>& linears) const;

  const Weights* const weights_;
  const std::string prefix_;
  const cpu::StoredType matrix_type_;
  const QuantizationConfig* const quantization_;
  const bool takes_fp8_;
  const WeightForm random_form_;
  const ActivationType activation_;
  absl::Status status_;
  std::vector<WeightPiece> pieces_;
  int64_t bytes_ = 0;
  int64_t expanded_bytes_ = 0;
  int64_t all_expanded_bytes_ = 0;
  int64_t fp8_columns_ = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_WEIGHT_LAYOUT_H_
