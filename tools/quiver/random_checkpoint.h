#ifndef QUIVER_TOOLS_QUIVER_RANDOM_CHECKPOINT_H_
#define QUIVER_TOOLS_QUIVER_RANDOM_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/weights.h"

namespace quiver {

struct RandomCheckpointOptions {
  // One of the two: a name of engine/model/model_shapes.h, or a config.json.
  std::string shape;
  std::string config_file;
  // Directory to make; it must not be there, or be empty.
  std::string output_dir;
  // 0 for the shape's own.
  int num_layers = 0;
  int vocab_size = 0;
  // kF32, kF16 or kBF16.
  DType dtype = DType::kBF16;
  uint64_t seed = 0;
  // Tensor bytes of a file, unless one tensor alone has more.
  int64_t shard_bytes = 5'000'000'000;
  // A directory with a tokenizer.json; empty for a plain tokenizer (checkpoint_files.h).
  std::string tokenizer_dir;
  // Threads that make values; 0 for every core.
  int num_threads = 0;
};

struct RandomCheckpoint {
  int64_t parameters = 0;
  int64_t weight_bytes = 0;
  int num_files = 0;
};

// Writes a checkpoint of random weights (engine/model/random_weights.h) as a Hugging Face directory
// that appears when it is whole. The same options give the same bytes. Memory does not grow with
// the model. `progress` is called now and then with the bytes written and those there will be.
absl::StatusOr<RandomCheckpoint> WriteRandomCheckpoint(
    const RandomCheckpointOptions& options,
    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_RANDOM_CHECKPOINT_H_
