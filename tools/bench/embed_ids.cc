// embed_ids MODEL_DIR IDS VECTORS [--device D] [--dtype T] [--force-portable]: the C++ side of
// check_against_transformers.py. IDS holds a sequence a line, its token ids with spaces between; a
// line without any ends a batch, and what stands between two such lines runs as one. Writes all
// vectors as float32 to VECTORS, in order, and prints the device.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/create_backend.h"

namespace {

int Fail(const std::string& message) {
  std::fprintf(stderr, "embed_ids: %s\n", message.c_str());
  return 1;
}

std::vector<quiver::PackedBatch> ReadBatches(const char* path, int dimensions) {
  std::vector<quiver::PackedBatch> batches(1);
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream stream(line);
    std::vector<quiver::TokenId> ids;
    for (quiver::TokenId id; stream >> id;) ids.push_back(id);
    if (!ids.empty()) {
      batches.back().Append(ids, {.dimensions = dimensions});
    } else if (batches.back().num_sequences() > 0) {
      batches.emplace_back();
    }
  }
  if (batches.back().num_sequences() == 0) batches.pop_back();
  return batches;
}

}  // namespace

int main(int argc, char** argv) {
  quiver::BackendOptions options;
  auto quantization = quiver::QuantizationChoice::kAuto;
  std::vector<const char*> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::string value = i + 1 < argc ? argv[i + 1] : "";
    if (argument == "--force-portable") {
      options.cuda.force_portable = true;
    } else if (argument == "--device" || argument == "--dtype") {
      const auto device = quiver::ParseDeviceChoice(value);
      const auto dtype = quiver::ParseComputeType(value);
      if (argument == "--device" ? !device.has_value() : !dtype.has_value()) {
        return Fail(argument + ": '" + value + "'");
      }
      if (argument == "--device") options.device = *device;
      if (argument == "--dtype") options.cuda.dtype = *dtype;
      ++i;
    } else if (argument == "--quantization" || argument == "--activation") {
      const auto chosen = quiver::ParseQuantizationChoice(value);
      const auto activation = quiver::ParseActivationType(value);
      if (argument == "--quantization" ? !chosen.has_value() : !activation.has_value()) {
        return Fail(argument + ": '" + value + "'");
      }
      if (argument == "--quantization") quantization = *chosen;
      if (argument == "--activation") options.cuda.activation = *activation;
      ++i;
    } else {
      paths.push_back(argv[i]);
    }
  }
  if (paths.size() != 3) return Fail("give MODEL_DIR IDS VECTORS");

  auto config = quiver::LoadModelConfig(paths[0]);
  if (!config.ok()) return Fail(config.status().ToString());
  auto quantized = config->quantization_config.With(quantization);
  if (!quantized.ok()) return Fail(quantized.status().ToString());
  config->quantization_config = *std::move(quantized);
  auto weights = quiver::Weights::Open(paths[0]);
  if (!weights.ok()) return Fail(weights.status().ToString());
  std::vector<quiver::PackedBatch> batches = ReadBatches(paths[1], config->hidden_size);
  for (const quiver::PackedBatch& batch : batches) {
    options.max_batch_tokens = std::max(options.max_batch_tokens, batch.num_tokens());
    for (int i = 0; i < batch.num_sequences(); ++i) {
      options.max_input_tokens =
          std::max(options.max_input_tokens, batch.cu_seqlens[i + 1] - batch.cu_seqlens[i]);
    }
  }
  const auto backend = quiver::CreateBackend(*config, *std::move(weights), options);
  if (!backend.ok()) return Fail(backend.status().ToString());
  std::printf("%s, %s\n", (*backend)->info().device.c_str(), (*backend)->info().arithmetic.c_str());

  std::ofstream out(paths[2], std::ios::binary);
  for (quiver::PackedBatch& batch : batches) {
    const auto pass = (*backend)->Begin(std::move(batch));
    if (!pass.ok()) return Fail(pass.status().ToString());
    const auto done = (*pass)->Run(std::numeric_limits<int64_t>::max());
    if (!done.ok()) return Fail(done.status().ToString());
    for (const auto& vector : (*pass)->Finish()) {
      if (!vector.ok()) return Fail(vector.status().ToString());
      out.write(vector->data.data(), static_cast<std::streamsize>(vector->data.size()));
    }
  }
  return out.flush() ? 0 : Fail(std::string(paths[2]) + ": cannot be written");
}
