#include "engine/run/cuda/batch_input.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/pool_encode.h"
#include "tests/engine/run/cuda/shapes.h"

namespace quiver {
namespace {

using testing::ElementsAre;

AttentionChoice Choice(const ForwardShape& shape) {
  return {.shape = {.num_heads = shape.num_heads,
                    .num_kv_heads = shape.num_kv_heads,
                    .head_dim = shape.head_dim,
                    .causal = shape.causal},
          .path = AttentionPath::kPortable,
          .max_launch_flop = 0};
}

PackedBatch Batch() {
  PackedBatch batch;
  batch.Append({7, 8, 9}, {.dimensions = 10, .normalize = false, .type = OutputType::kInt8});
  batch.Append({4}, {.dimensions = 384});
  batch.Append(std::vector<TokenId>(130, 5), {.dimensions = 33, .type = OutputType::kBinary});
  return batch;
}

template <typename T>
std::vector<T> Read(const std::vector<std::byte>& bytes, int64_t offset, size_t count) {
  std::vector<T> values(count);
  std::memcpy(values.data(), bytes.data() + offset, count * sizeof(T));
  return values;
}

TEST(BatchInputTest, PositionsAndPooledRowsFollowTheSequences) {
  for (const Pooling pooling : {Pooling::kLastToken, Pooling::kCls}) {
    const ForwardShape shape = Shape4B();
    const PackedBatch batch = Batch();
    const DeviceBatch device = MakeDeviceBatch(batch, shape, pooling, Choice(shape));
    std::vector<std::byte> bytes(static_cast<size_t>(device.input.bytes), std::byte{0xff});
    std::vector<int64_t> offsets;
    FillInput(batch, device, shape, pooling, bytes.data(), &offsets);
    EXPECT_EQ(Read<int32_t>(bytes, device.input.ids, 134), batch.token_ids);
    const std::vector<int32_t> positions = Read<int32_t>(bytes, device.input.positions, 134);
    EXPECT_THAT(std::vector<int32_t>(positions.begin(), positions.begin() + 6),
                ElementsAre(0, 1, 2, 0, 0, 1));
    EXPECT_EQ(positions.back(), 129);
    const bool last = pooling == Pooling::kLastToken;
    EXPECT_THAT(Read<int32_t>(bytes, device.input.pooled_rows, 3),
                ElementsAre(last ? 2 : 0, 3, last ? 133 : 4));
    EXPECT_THAT(Read<int32_t>(bytes, device.input.pooled_positions, 3),
                ElementsAre(last ? 2 : 0, 0, last ? 129 : 0));
    EXPECT_THAT(offsets, ElementsAre(0, 16, 16 + 384 * 4, 16 + 384 * 4 + 16));
    // One query of each sequence, against all of its keys.
    ASSERT_EQ(device.pooled_attention.tiles.size(), 3u);
    for (const AttentionTile& tile : device.pooled_attention.tiles) {
      EXPECT_EQ(tile.num_rows, 1);
      EXPECT_EQ(tile.q_position, last ? tile.kv_rows - 1 : 0);
    }
  }
}

TEST(BatchInputTest, ItemsPoolWholeSequencesWhereTheLastLayerIsNotPruned) {
  const ForwardShape shape = ShapeMiniLm();
  const PackedBatch batch = Batch();
  const DeviceBatch device = MakeDeviceBatch(batch, shape, Pooling::kMean, Choice(shape));
  EXPECT_TRUE(device.pooled_attention.tiles.empty());
  std::vector<std::byte> bytes(static_cast<size_t>(device.input.bytes));
  std::vector<int64_t> offsets;
  FillInput(batch, device, shape, Pooling::kMean, bytes.data(), &offsets);
  const std::vector<PoolItem> items = Read<PoolItem>(bytes, device.input.items, 3);
  EXPECT_EQ(items[2].first_row, 4);
  EXPECT_EQ(items[2].num_rows, 130);
  EXPECT_EQ(items[2].dimensions, 33);
  EXPECT_EQ(items[2].encoding, cpu::Encoding::kBinary);
  EXPECT_FALSE(items[0].normalize);
  EXPECT_EQ(items[1].out_offset, 16);
}

TEST(BatchInputTest, PaddingHasNoSequenceAndTheSameSizesForEveryBatch) {
  const ForwardShape shape = Shape4B();
  const GraphBucket bucket = {.tokens = 192, .sequences = 12};
  PackedBatch one;
  one.Append({1}, {.dimensions = 5});
  const DeviceBatch small = MakePaddedBatch(one, shape, Pooling::kLastToken, Choice(shape), bucket);
  const DeviceBatch large =
      MakePaddedBatch(Batch(), shape, Pooling::kLastToken, Choice(shape), bucket);
  EXPECT_EQ(small.tokens, 192);
  EXPECT_EQ(small.sequences, 12);
  EXPECT_EQ(small.input.bytes, large.input.bytes);
  EXPECT_EQ(small.input.pooled_tiles, large.input.pooled_tiles);
  std::vector<std::byte> bytes(static_cast<size_t>(small.input.bytes), std::byte{0xff});
  std::vector<int64_t> offsets;
  FillInput(one, small, shape, Pooling::kLastToken, bytes.data(), &offsets);
  const std::vector<int32_t> ids = Read<int32_t>(bytes, small.input.ids, 192);
  EXPECT_EQ(ids[0], 1);
  EXPECT_EQ(std::vector<int32_t>(ids.begin() + 1, ids.end()), std::vector<int32_t>(191, 0));
  const std::vector<PoolItem> items = Read<PoolItem>(bytes, small.input.items, 12);
  EXPECT_EQ(items[0].num_rows, 1);
  for (size_t s = 1; s < 12; ++s) EXPECT_EQ(items[s].num_rows, 0);
}

TEST(BatchInputTest, ARegionHoldsTheInputOfWhateverItsLimitsAllow) {
  const ForwardShape shape = Shape4B();
  const PassLimits limits = {.tokens = 1024, .sequences = 512, .chunk_tokens = 1024};
  const int64_t most = ActivationLayout(shape, limits).input_bytes;
  for (const int sequences : {1, 7, 64, 512}) {
    PackedBatch batch;
    for (int s = 0; s < sequences; ++s) {
      batch.Append(std::vector<TokenId>(1024 / sequences, 1), {.dimensions = 1});
    }
    EXPECT_LE(MakeDeviceBatch(batch, shape, Pooling::kLastToken, Choice(shape)).input.bytes, most);
  }
  for (const GraphBucket& bucket : GraphBuckets(limits)) {
    PackedBatch batch;
    batch.Append({1}, {.dimensions = 1});
    EXPECT_LE(MakePaddedBatch(batch, shape, Pooling::kLastToken, Choice(shape), bucket).input.bytes,
              most);
  }
}

}  // namespace
}  // namespace quiver
