// What a pass copies to the device before it starts, made from a packed batch. Host only.
#ifndef QUIVER_ENGINE_RUN_CUDA_BATCH_INPUT_H_
#define QUIVER_ENGINE_RUN_CUDA_BATCH_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/run/cuda/activation_layout.h"
#include "engine/run/cuda/forward_shape.h"
#include "engine/run/cuda/graph_bucket.h"
#include "engine/run/packed_batch.h"
#include "kernels/cuda/attention.h"

namespace quiver {

// A batch's sizes on the device, padding included, and its attention.
struct DeviceBatch {
  int64_t tokens = 0;
  int64_t sequences = 0;
  AttentionPlan attention;
  AttentionPlan pooled_attention;  // of one row of each sequence; empty unless prune_last
  InputLayout input;
};

struct AttentionChoice {
  AttentionShape shape;
  AttentionPath path = AttentionPath::kPortable;
  double max_launch_flop = 0;
};

// `pooling` says which token stands for a sequence in a pruned last layer.
DeviceBatch MakeDeviceBatch(const PackedBatch& batch, const ForwardShape& shape, Pooling pooling,
                            const AttentionChoice& attention);
// The same, filled up to `bucket`: whatever the batch, all but the tiles' contents is equal.
DeviceBatch MakePaddedBatch(const PackedBatch& batch, const ForwardShape& shape, Pooling pooling,
                            const AttentionChoice& attention, const GraphBucket& bucket);

// Writes input.bytes to `host`. Vector s begins at (*offsets)[s] of the vectors, and
// offsets->back() is their end.
void FillInput(const PackedBatch& batch, const DeviceBatch& device, const ForwardShape& shape,
               Pooling pooling, std::byte* host, std::vector<int64_t>* offsets);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_BATCH_INPUT_H_
