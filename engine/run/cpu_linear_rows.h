// Linears' weights as the CPU kernels pack them.
#ifndef QUIVER_ENGINE_RUN_CPU_LINEAR_ROWS_H_
#define QUIVER_ENGINE_RUN_CPU_LINEAR_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/linear_weight.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

// The rows of one fused matrix: codes where all its Linears are quantized alike (coding, groups,
// order of inputs), else floats. Holds what it made of them; what it did not make it reads from
// `linears`, which must outlive it.
class CpuLinearRows {
 public:
  // DATA_LOSS if a code is no number.
  static absl::StatusOr<CpuLinearRows> Of(const std::vector<LinearWeight>& linears,
                                          cpu::ThreadPool* pool);

  // One for each Linear; one of the two is empty.
  const std::vector<cpu::CodedRows>& coded() const { return coded_; }
  const std::vector<cpu::WeightRows>& floats() const { return floats_; }

 private:
  // What stands behind one of the coded.
  struct Codes {
    std::vector<uint8_t> codes;
    std::vector<uint8_t> zero_points;
    std::vector<float> scales;
  };

  void ReadCodes(const std::vector<LinearWeight>& linears, cpu::ThreadPool* pool);
  void ReadFloats(const std::vector<LinearWeight>& linears, cpu::ThreadPool* pool);

  std::vector<uint16_t> input_groups_;
  std::vector<Codes> codes_;
  std::vector<std::vector<float>> dequantized_;
  std::vector<cpu::CodedRows> coded_;
  std::vector<cpu::WeightRows> floats_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CPU_LINEAR_ROWS_H_
