// Writes every Linear of a checkpoint as it is defined in floats, for a test to compare:
//   dump_linears MODEL_DIR OUT.safetensors
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "engine/model/linear_weight.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "engine/model/safetensors_writer.h"
#include "engine/model/weights.h"

namespace quiver {
namespace {

absl::Status Dump(const std::string& dir, const std::string& out) {
  absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  if (!weights.ok()) return weights.status();
  const std::string prefix = (*weights)->Contains("model.embed_tokens.weight") ? "model." : "";
  std::vector<SafetensorsWriter::Tensor> tensors;
  std::vector<LinearWeight> linears;
  for (const ModelTensor& tensor : ModelTensors(*config)) {
    if (tensor.role == TensorRole::kEmbedding || tensor.shape.size() != 2) continue;
    const std::string module(absl::StripSuffix(tensor.name, ".weight"));
    absl::StatusOr<LinearWeight> linear =
        LinearWeight::Find(**weights, prefix, module, tensor.shape[0], tensor.shape[1],
                           config->quantization_config.SchemeOf(module));
    if (!linear.ok()) return linear.status();
    if (absl::Status codes = linear->CheckCodes(0, linear->outputs()); !codes.ok()) return codes;
    tensors.push_back({tensor.name, DType::kF32, tensor.shape});
    linears.push_back(*std::move(linear));
  }
  absl::StatusOr<std::unique_ptr<SafetensorsWriter>> writer =
      SafetensorsWriter::Create(out, tensors);
  if (!writer.ok()) return writer.status();
  for (const LinearWeight& linear : linears) {
    // In runs that no layout's words divide into.
    constexpr int64_t kRun = 7;
    std::vector<float> values(static_cast<size_t>(kRun * linear.inputs()));
    for (int64_t row = 0; row < linear.outputs(); row += kRun) {
      const int64_t count = std::min(kRun, linear.outputs() - row);
      linear.Dequantize(row, count, values.data());
      const absl::Status status =
          (*writer)->Append({reinterpret_cast<const std::byte*>(values.data()),
                             static_cast<size_t>(count * linear.inputs()) * sizeof(float)});
      if (!status.ok()) return status;
    }
  }
  std::cout << config->quantization << "\n";
  return (*writer)->Close();
}

}  // namespace
}  // namespace quiver

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "Usage: dump_linears MODEL_DIR OUT.safetensors\n";
    return 2;
  }
  const absl::Status status = quiver::Dump(argv[1], argv[2]);
  if (status.ok()) return 0;
  std::cerr << status << "\n";
  return 1;
}
