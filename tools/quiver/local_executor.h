#ifndef QUIVER_TOOLS_QUIVER_LOCAL_EXECUTOR_H_
#define QUIVER_TOOLS_QUIVER_LOCAL_EXECUTOR_H_

#include <string>

#include "engine/model/quantization_config.h"
#include "engine/run/device_options.h"
#include "tools/quiver/executor.h"

namespace quiver {

// The engine inside this process. Each method loads only what it needs: weights are run by Embed
// alone.
class LocalExecutor : public Executor {
 public:
  struct Options {
    // A Hugging Face directory, or a model's name at the hub.
    std::string model;
    // Threads that compute; 0 for all cores this process may use.
    int num_threads = 0;
    DeviceChoice device = {};
    CudaOptions cuda = {};
    QuantizationChoice quantization = QuantizationChoice::kAuto;
    // Whether Describe names the vector space, for which it reads the weights to the end.
    bool fingerprint = true;
  };
  explicit LocalExecutor(Options options) : options_(std::move(options)) {}

  absl::StatusOr<v1::ModelInfo> Describe() override;
  absl::Status Embed(const WorkOptions& options, InputSource* source, EmbeddingSink* sink) override;
  absl::Status Tokenize(const WorkOptions& options, InputSource* source, TokenSink* sink) override;

 private:
  const Options options_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_LOCAL_EXECUTOR_H_
