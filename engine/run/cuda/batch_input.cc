#include "engine/run/cuda/batch_input.h"

#include <algorithm>
#include <cstring>

#include "engine/run/encoding.h"
#include "kernels/cuda/pool_encode.h"

namespace quiver {
namespace {

constexpr int64_t kVectorAlignment = 16;

std::vector<AttentionRows> WholeSequences(const PackedBatch& batch) {
  std::vector<AttentionRows> rows;
  rows.reserve(batch.outputs.size());
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int32_t begin = batch.cu_seqlens[s];
    const int32_t length = batch.cu_seqlens[s + 1] - begin;
    rows.push_back(
        {.q_row = begin, .q_position = 0, .num_rows = length, .kv_row = begin, .kv_rows = length});
  }
  return rows;
}

int32_t PooledPosition(const PackedBatch& batch, int sequence, Pooling pooling) {
  return pooling == Pooling::kCls ? 0
                                  : batch.cu_seqlens[sequence + 1] - batch.cu_seqlens[sequence] - 1;
}

std::vector<AttentionRows> PooledRows(const PackedBatch& batch, Pooling pooling) {
  std::vector<AttentionRows> rows = WholeSequences(batch);
  for (int s = 0; s < batch.num_sequences(); ++s) {
    rows[s].q_row = s;
    rows[s].q_position = PooledPosition(batch, s, pooling);
    rows[s].num_rows = 1;
  }
  return rows;
}

template <typename T>
T* At(std::byte* host, int64_t offset) {
  return reinterpret_cast<T*>(host + offset);
}

void CopyTiles(const AttentionPlan& plan, std::byte* host) {
  if (!plan.tiles.empty()) {
    std::memcpy(host, plan.tiles.data(), plan.tiles.size() * sizeof(AttentionTile));
  }
}

}  // namespace

DeviceBatch MakeDeviceBatch(const PackedBatch& batch, const ForwardShape& shape, Pooling pooling,
                            const AttentionChoice& attention) {
  const AttentionPlanOptions options = {.max_launch_flop = attention.max_launch_flop};
  DeviceBatch device;
  device.tokens = batch.num_tokens();
  device.sequences = batch.num_sequences();
  device.attention = PlanAttention(attention.shape, attention.path, WholeSequences(batch), options);
  if (shape.prune_last) {
    device.pooled_attention =
        PlanAttention(attention.shape, attention.path, PooledRows(batch, pooling), options);
  }
  device.input = InputLayout(device.tokens, device.sequences,
                             static_cast<int64_t>(device.attention.tiles.size()),
                             static_cast<int64_t>(device.pooled_attention.tiles.size()));
  return device;
}

DeviceBatch MakePaddedBatch(const PackedBatch& batch, const ForwardShape& shape, Pooling pooling,
                            const AttentionChoice& attention, const GraphBucket& bucket) {
  DeviceBatch device;
  device.tokens = bucket.tokens;
  device.sequences = bucket.sequences;
  device.attention = PadAttention(attention.shape, attention.path, WholeSequences(batch),
                                  LongTiles(bucket), ShortTiles(bucket), bucket.tokens);
  if (shape.prune_last) {
    device.pooled_attention =
        PadAttention(attention.shape, attention.path, PooledRows(batch, pooling),
                     PooledLongTiles(bucket), PooledShortTiles(bucket), bucket.tokens);
  }
  device.input = InputLayout(device.tokens, device.sequences,
                             static_cast<int64_t>(device.attention.tiles.size()),
                             static_cast<int64_t>(device.pooled_attention.tiles.size()));
  return device;
}

void FillInput(const PackedBatch& batch, const DeviceBatch& device, const ForwardShape& shape,
               Pooling pooling, std::byte* host, std::vector<int64_t>* offsets) {
  const InputLayout& layout = device.input;
  // Tokens without a sequence have id and position 0; sequences without tokens have no rows.
  std::memset(host, 0, static_cast<size_t>(layout.bytes));
  std::copy(batch.token_ids.begin(), batch.token_ids.end(), At<int32_t>(host, layout.ids));
  int32_t* positions = At<int32_t>(host, layout.positions);
  int32_t* pooled_rows = At<int32_t>(host, layout.pooled_rows);
  int32_t* pooled_positions = At<int32_t>(host, layout.pooled_positions);
  PoolItem* items = At<PoolItem>(host, layout.items);
  offsets->assign(1, 0);
  for (int s = 0; s < batch.num_sequences(); ++s) {
    const int32_t begin = batch.cu_seqlens[s];
    const int32_t length = batch.cu_seqlens[s + 1] - begin;
    for (int32_t i = 0; i < length; ++i) positions[begin + i] = i;
    pooled_positions[s] = PooledPosition(batch, s, pooling);
    pooled_rows[s] = begin + pooled_positions[s];
    const OutputSpec& output = batch.outputs[s];
    items[s] = {.first_row = shape.prune_last ? s : begin,
                .num_rows = shape.prune_last ? 1 : length,
                .dimensions = output.dimensions,
                .encoding = EncodingOf(output.type),
                .normalize = output.normalize,
                .out_offset = offsets->back()};
    const auto bytes = static_cast<int64_t>(OutputBytes(output.type, output.dimensions));
    offsets->push_back(offsets->back() + AlignUp(bytes, kVectorAlignment));
  }
  CopyTiles(device.attention, host + layout.tiles);
  CopyTiles(device.pooled_attention, host + layout.pooled_tiles);
}

}  // namespace quiver
