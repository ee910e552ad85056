// The device's attention kernels against a plain F32 reference on the device, over both paths.
// Skipped where there is no device.
#include "kernels/cuda/attention.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/device_memory.h"

namespace quiver {
namespace {

// Of the whole output: BF16 and FP16 round the weights and the output to 8 and 11 bits.
constexpr double kBf16Tolerance = 4e-3;
constexpr double kF16Tolerance = 6e-4;

// Sequences packed into one fused QKV buffer with some spare columns, and an output likewise.
class Batch {
 public:
  Batch(const AttentionShape& shape, const std::vector<int>& lengths, uint32_t seed = 1)
      : shape_(shape),
        lengths_(lengths),
        tokens_(std::accumulate(lengths.begin(), lengths.end(), 0)),
        row_((shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim + 16),
        out_row_(shape.num_heads * shape.head_dim + 8),
        scale_(1.0f / std::sqrt(static_cast<float>(shape.head_dim))),
        qkv_(static_cast<size_t>(tokens_) * row_),
        out_(static_cast<size_t>(tokens_) * out_row_),
        counters_(std::vector<int32_t>(2)) {
    EXPECT_EQ(FillRandom(qkv_.get(), static_cast<int64_t>(tokens_) * row_, shape.type, 2.0f, seed,
                         nullptr),
              cudaSuccess);
    tensors_.q = qkv_.get();
    tensors_.k = qkv_.get() + shape.num_heads * shape.head_dim;
    tensors_.v = qkv_.get() + (shape.num_heads + shape.num_kv_heads) * shape.head_dim;
    tensors_.out = out_.get();
    tensors_.q_stride = tensors_.k_stride = tensors_.v_stride = row_;
    tensors_.out_stride = out_row_;
    tensors_.q_rows = tensors_.kv_rows = tokens_;
    tensors_.counters = counters_.get();
  }

  // Every row of every sequence.
  std::vector<AttentionRows> AllRows() const {
    std::vector<AttentionRows> rows;
    int32_t begin = 0;
    for (const int length : lengths_) {
      rows.push_back({begin, 0, length, begin, length});
      begin += length;
    }
    return rows;
  }

  // Poisons the output, runs the whole plan and returns the output's bits.
  std::vector<uint16_t> Run(AttentionPath path, const std::vector<AttentionRows>& rows,
                            const AttentionPlanOptions& options = {}) {
    const AttentionPlan plan = PlanAttention(shape_, path, rows, options);
    DeviceBuffer<AttentionTile> tiles(plan.tiles);
    tensors_.tiles = tiles.get();
    EXPECT_EQ(cudaMemset(out_.get(), 0x7f, static_cast<size_t>(tokens_) * out_row_ * 2),
              cudaSuccess);
    for (const AttentionLaunch& launch : plan.launches) {
      EXPECT_EQ(Attention(shape_, launch, tensors_, scale_, nullptr), cudaSuccess);
    }
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(counters_.ToHost(), std::vector<int32_t>(2));
    return out_.ToHost();
  }

  std::vector<float> Reference(const std::vector<AttentionRows>& rows) {
    DeviceBuffer<AttentionRows> device_rows(rows);
    DeviceBuffer<float> out(static_cast<size_t>(tokens_) * shape_.num_heads * shape_.head_dim);
    int max_rows = 1;
    for (const AttentionRows& run : rows) max_rows = std::max(max_rows, run.num_rows);
    EXPECT_EQ(ReferenceAttention(shape_, tensors_, device_rows.get(), static_cast<int>(rows.size()),
                                 max_rows, scale_, out.get(), nullptr),
              cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return out.ToHost();
  }

  // Checks the rows asked for against the reference, and that nothing else was written.
  void ExpectRight(AttentionPath path, const std::vector<AttentionRows>& rows,
                   const AttentionPlanOptions& options = {}) {
    const std::vector<uint16_t> out = Run(path, rows, options);
    const std::vector<float> reference = Reference(rows);
    const int columns = shape_.num_heads * shape_.head_dim;
    std::vector<bool> asked(static_cast<size_t>(tokens_));
    double error = 0;
    double norm = 0;
    double worst = 0;
    for (const AttentionRows& run : rows) {
      for (int row = run.q_row; row < run.q_row + run.num_rows; ++row) {
        asked[static_cast<size_t>(row)] = true;
        for (int c = 0; c < columns; ++c) {
          const double want = reference[static_cast<size_t>(row) * columns + c];
          const double got = WidenHalf(out[static_cast<size_t>(row) * out_row_ + c], shape_.type);
          ASSERT_TRUE(std::isfinite(got)) << "row " << row << " column " << c;
          error += (got - want) * (got - want);
          norm += want * want;
          worst = std::max(worst, std::abs(got - want));
        }
      }
    }
    const bool is_f16 = shape_.type == AttentionType::kF16;
    EXPECT_LT(std::sqrt(error / norm), is_f16 ? kF16Tolerance : kBf16Tolerance);
    EXPECT_LT(worst, is_f16 ? 4e-3 : 3e-2);
    for (int row = 0; row < tokens_; ++row) {
      const int first_unasked = asked[static_cast<size_t>(row)] ? columns : 0;
      for (int c = first_unasked; c < out_row_; ++c) {
        ASSERT_EQ(out[static_cast<size_t>(row) * out_row_ + c], 0x7f7f)
            << "row " << row << " column " << c;
      }
    }
  }

  // The output bits of one sequence, without the spare columns.
  std::vector<uint16_t> SequenceBits(const std::vector<uint16_t>& out, int sequence) const {
    const int begin = std::accumulate(lengths_.begin(), lengths_.begin() + sequence, 0);
    std::vector<uint16_t> bits;
    for (int row = begin; row < begin + lengths_[static_cast<size_t>(sequence)]; ++row) {
      const auto from = out.begin() + static_cast<int64_t>(row) * out_row_;
      bits.insert(bits.end(), from, from + shape_.num_heads * shape_.head_dim);
    }
    return bits;
  }

  // Replaces one sequence's fused rows, `bits` as from FusedRows().
  void SetFusedRows(int sequence, const std::vector<uint16_t>& bits) {
    const int begin = std::accumulate(lengths_.begin(), lengths_.begin() + sequence, 0);
    EXPECT_EQ(cudaMemcpy(qkv_.get() + static_cast<int64_t>(begin) * row_, bits.data(),
                         bits.size() * 2, cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  std::vector<uint16_t> FusedRows(int sequence) const {
    const std::vector<uint16_t> all = qkv_.ToHost();
    const int64_t begin = std::accumulate(lengths_.begin(), lengths_.begin() + sequence, 0);
    const auto from = all.begin() + begin * row_;
    return {from, from + static_cast<int64_t>(lengths_[static_cast<size_t>(sequence)]) * row_};
  }

  int64_t fused_row() const { return row_; }
  AttentionTensors& tensors() { return tensors_; }
  float scale() const { return scale_; }

 private:
  AttentionShape shape_;
  std::vector<int> lengths_;
  int tokens_;
  int64_t row_;
  int64_t out_row_;
  float scale_;
  DeviceBuffer<uint16_t> qkv_;
  DeviceBuffer<uint16_t> out_;
  DeviceBuffer<int32_t> counters_;
  AttentionTensors tensors_;
};

std::string PathName(AttentionPath path) {
  return path == AttentionPath::kHopper ? "Hopper" : "Portable";
}

class AttentionTest : public DeviceTest, public testing::WithParamInterface<AttentionPath> {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    AttentionPath best;
    ASSERT_CUDA(BestAttentionPath(&best));
    if (GetParam() == AttentionPath::kHopper && best != AttentionPath::kHopper) {
      GTEST_SKIP() << "not a Hopper device";
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Paths, AttentionTest,
                         testing::Values(AttentionPath::kPortable, AttentionPath::kHopper),
                         [](const auto& path) { return PathName(path.param); });

const std::vector<int> kAwkwardLengths = {1,   2,   15,  16,  17,  63,  64,  65,   127, 128,
                                          129, 191, 255, 256, 257, 511, 640, 1000, 3};

TEST_P(AttentionTest, AgreesWithReferenceAtAwkwardLengths) {
  for (const AttentionType type : {AttentionType::kBf16, AttentionType::kF16}) {
    for (const int head_dim : {32, 64, 128}) {
      for (const bool causal : {false, true}) {
        SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << " causal " << causal
                                        << " f16 " << (type == AttentionType::kF16));
        Batch batch({8, 2, head_dim, causal, type}, kAwkwardLengths);
        batch.ExpectRight(GetParam(), batch.AllRows());
      }
    }
  }
}

TEST_P(AttentionTest, AgreesWithReferenceForEveryGroupSize) {
  for (const auto& [heads, kv_heads] :
       std::vector<std::pair<int, int>>{{4, 4}, {4, 2}, {3, 1}, {12, 4}, {8, 1}, {1, 1}}) {
    for (const bool causal : {false, true}) {
      SCOPED_TRACE(testing::Message() << heads << " over " << kv_heads << " causal " << causal);
      Batch batch({heads, kv_heads, 128, causal, AttentionType::kBf16}, {300, 5, 129, 700});
      batch.ExpectRight(GetParam(), batch.AllRows());
    }
  }
}

TEST_P(AttentionTest, AgreesWithReferenceOnLongSequences) {
  for (const bool causal : {false, true}) {
    Batch batch({8, 2, 128, causal, AttentionType::kBf16}, {4096, 2049, 77});
    batch.ExpectRight(GetParam(), batch.AllRows());
  }
}

TEST_P(AttentionTest, AgreesWithReferenceWhenBlocksTakeManyTiles) {
  std::vector<int> lengths;
  for (int i = 0; i < 60; ++i) lengths.push_back(1 + i * 7919 % 700);
  for (const bool causal : {false, true}) {
    for (const int kv_heads : {4, 16}) {
      Batch batch({16, kv_heads, 128, causal, AttentionType::kBf16}, lengths);
      batch.ExpectRight(GetParam(), batch.AllRows());
    }
  }
}

TEST_P(AttentionTest, ChunksOfQueriesAgreeWithReferenceWhereverTheyStart) {
  for (const bool causal : {false, true}) {
    Batch batch({8, 2, 128, causal, AttentionType::kBf16}, {1000, 90, 500});
    // The middle of the first, the last row of the second, an end of the third.
    batch.ExpectRight(
        GetParam(),
        {{333, 333, 400, 0, 1000}, {1089, 89, 1, 1000, 90}, {1490, 400, 100, 1090, 500}});
  }
}

TEST_P(AttentionTest, QueriesMayLieElsewhereThanTheirKeys) {
  Batch batch({8, 2, 128, true, AttentionType::kBf16}, {600, 200});
  // The last rows of both sequences, side by side.
  batch.ExpectRight(GetParam(), {{0, 599, 1, 0, 600}, {1, 199, 1, 600, 200}});
}

TEST_P(AttentionTest, LimitedLaunchesGiveTheSameBits) {
  const AttentionShape shape = {8, 2, 128, true, AttentionType::kBf16};
  Batch batch(shape, {2000, 64, 700, 20});
  const auto whole = batch.Run(GetParam(), batch.AllRows());
  AttentionPlanOptions options;
  // Between one key head's share and all of it, and below one's.
  for (const auto& [limit, launches] : {std::pair(5e9, 2u), std::pair(5e8, 8u)}) {
    options.max_launch_flop = limit;
    EXPECT_GT(PlanAttention(shape, GetParam(), batch.AllRows(), options).launches.size(), launches);
    EXPECT_EQ(batch.Run(GetParam(), batch.AllRows(), options), whole);
  }
}

TEST_P(AttentionTest, PaddedPlansGiveTheSameBits) {
  Batch batch({8, 2, 128, true, AttentionType::kF16}, {200, 64, 700, 20});
  const auto whole = batch.Run(GetParam(), batch.AllRows());
  AttentionPlanOptions options;
  options.padded_rows = 1024;
  options.padded_sequences = 16;
  EXPECT_EQ(batch.Run(GetParam(), batch.AllRows(), options), whole);
}

TEST_P(AttentionTest, SequenceHasTheSameBitsWhateverSharesItsBatch) {
  for (const int head_dim : {64, 128}) {
    const AttentionShape shape = {8, 2, head_dim, true, AttentionType::kBf16};
    for (const int length : {1, 33, 128, 129, 1000}) {
      SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << " length " << length);
      Batch alone(shape, {length});
      const auto want = alone.SequenceBits(alone.Run(GetParam(), alone.AllRows()), 0);
      Batch shared(shape, {517, 40, length, 2048, 128}, 7);
      shared.SetFusedRows(2, alone.FusedRows(0));
      EXPECT_EQ(shared.SequenceBits(shared.Run(GetParam(), shared.AllRows()), 2), want);
    }
  }
}

TEST_P(AttentionTest, NeighboursNanAndInfinityStayWithThem) {
  for (const int head_dim : {64, 128}) {
    for (const bool causal : {false, true}) {
      const AttentionShape shape = {8, 2, head_dim, causal, AttentionType::kF16};
      for (const int length : {1, 100, 129, 700}) {
        SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << " length " << length);
        Batch batch(shape, {300, length, 300});
        const auto want = batch.SequenceBits(batch.Run(GetParam(), batch.AllRows()), 1);
        for (const uint16_t bits : {uint16_t{0x7c00}, uint16_t{0x7e00}}) {
          const std::vector<uint16_t> bad(static_cast<size_t>(300 * batch.fused_row()), bits);
          batch.SetFusedRows(0, bad);
          batch.SetFusedRows(2, bad);
          EXPECT_EQ(batch.SequenceBits(batch.Run(GetParam(), batch.AllRows()), 1), want);
        }
      }
    }
  }
}

TEST_P(AttentionTest, OutputMayReplaceQueries) {
  const AttentionShape shape = {8, 2, 128, true, AttentionType::kBf16};
  Batch batch(shape, {900, 100, 30});
  const std::vector<AttentionRows> rows = batch.AllRows();
  const auto want = batch.SequenceBits(batch.Run(GetParam(), rows), 0);
  const AttentionPlan plan = PlanAttention(shape, GetParam(), rows, {});
  DeviceBuffer<AttentionTile> tiles(plan.tiles);
  AttentionTensors tensors = batch.tensors();
  tensors.tiles = tiles.get();
  tensors.out = const_cast<void*>(tensors.q);
  tensors.out_stride = tensors.q_stride;
  for (const AttentionLaunch& launch : plan.launches) {
    ASSERT_CUDA(Attention(shape, launch, tensors, batch.scale(), nullptr));
  }
  ASSERT_CUDA(cudaDeviceSynchronize());
  const std::vector<uint16_t> fused = batch.FusedRows(0);
  for (int row = 0; row < 900; ++row) {
    const auto got = fused.begin() + row * batch.fused_row();
    ASSERT_TRUE(std::equal(got, got + 8 * 128, want.begin() + row * 8 * 128)) << "row " << row;
  }
}

TEST_P(AttentionTest, RefusesWhatTheContractExcludes) {
  const AttentionShape shape = {8, 2, 128, true, AttentionType::kBf16};
  Batch batch(shape, {200});
  const AttentionPlan plan = PlanAttention(shape, GetParam(), batch.AllRows(), {});
  ASSERT_EQ(plan.launches.size(), 1u);
  DeviceBuffer<AttentionTile> tiles(plan.tiles);
  batch.tensors().tiles = tiles.get();
  const auto refused = [&](const AttentionShape& s, const AttentionTensors& t) {
    return Attention(s, plan.launches[0], t, batch.scale(), nullptr) == cudaErrorInvalidValue;
  };
  AttentionTensors tensors = batch.tensors();
  EXPECT_FALSE(refused(shape, tensors));
  EXPECT_TRUE(refused({8, 3, 128, true, AttentionType::kBf16}, tensors));
  EXPECT_TRUE(refused({8, 2, 96, true, AttentionType::kBf16}, tensors));
  tensors.q_stride += 4;
  EXPECT_TRUE(refused(shape, tensors));
  tensors = batch.tensors();
  tensors.k = static_cast<const uint16_t*>(tensors.k) + 4;
  EXPECT_TRUE(refused(shape, tensors));
  tensors = batch.tensors();
  tensors.out_stride = 512;
  EXPECT_TRUE(refused(shape, tensors));
  ASSERT_CUDA(cudaDeviceSynchronize());
}

}  // namespace
}  // namespace quiver
