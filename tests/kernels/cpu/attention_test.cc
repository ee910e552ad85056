#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/isa.h"
#include "tests/kernels/cpu/guarded_matrix.h"

namespace quiver::cpu {
namespace {

// Of averages of values of about 1, scores up to about 10.
constexpr double kTolerance = 2e-5;

struct Shape {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  bool causal;
};

constexpr Shape kShapes[] = {{1, 1, 8, false},   {3, 3, 32, false}, {2, 2, 64, true},
                             {4, 2, 128, true},  {6, 1, 40, true},  {5, 5, 72, false},
                             {2, 1, 256, false}, {16, 8, 24, true}};

struct Inputs {
  Inputs(std::mt19937* rng, const Shape& s, int64_t tokens)
      : shape(s),
        q(GuardedMatrix::Random(rng, tokens, s.num_heads * s.head_dim)),
        k(GuardedMatrix::Random(rng, tokens, s.num_kv_heads * s.head_dim, 5)),
        v(GuardedMatrix::Random(rng, tokens, s.num_kv_heads * s.head_dim, 7)) {}

  AttentionArgs Args(GuardedMatrix* out) const {
    AttentionArgs args;
    args.q = q.data();
    args.k = k.data();
    args.v = v.data();
    args.out = out->data();
    args.q_stride = q.stride();
    args.k_stride = k.stride();
    args.v_stride = v.stride();
    args.out_stride = out->stride();
    args.num_heads = shape.num_heads;
    args.num_kv_heads = shape.num_kv_heads;
    args.head_dim = shape.head_dim;
    args.causal = shape.causal;
    args.scale = 1.5f / std::sqrt(static_cast<float>(shape.head_dim));
    return args;
  }

  GuardedMatrix Attend(const std::vector<AttentionSpan>& spans, ThreadPool* pool) const {
    GuardedMatrix out(q.rows(), q.cols());
    Attention(Args(&out), spans, pool);
    return out;
  }

  // One query in one head.
  std::vector<double> Expected(const AttentionSpan& span, int64_t query, int head) const {
    const int kv_head = head / (shape.num_heads / shape.num_kv_heads);
    const float* q_row = q.row(span.q_row + query) + head * shape.head_dim;
    const int64_t visible = shape.causal ? span.q_position + query + 1 : span.kv_count;
    std::vector<double> weights;
    for (int64_t j = 0; j < visible; ++j) {
      const float* k_row = k.row(span.kv_row + j) + kv_head * shape.head_dim;
      double dot = 0;
      for (int i = 0; i < shape.head_dim; ++i) dot += static_cast<double>(q_row[i]) * k_row[i];
      weights.push_back(dot * 1.5 / std::sqrt(shape.head_dim));
    }
    const double max = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - max);
    std::vector<double> out(static_cast<size_t>(shape.head_dim), 0.0);
    for (int64_t j = 0; j < visible; ++j) {
      const float* v_row = v.row(span.kv_row + j) + kv_head * shape.head_dim;
      for (int i = 0; i < shape.head_dim; ++i) out[i] += weights[j] / sum * v_row[i];
    }
    return out;
  }

  Shape shape;
  GuardedMatrix q, k, v;
};

std::vector<int32_t> Packed(const std::vector<int>& lengths) {
  std::vector<int32_t> cu_seqlens = {0};
  for (const int length : lengths) cu_seqlens.push_back(cu_seqlens.back() + length);
  return cu_seqlens;
}

TEST(AttentionTest, ResultsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  ThreadPool pool(2);
  const std::vector<int32_t> cu_seqlens = Packed({1, 17, 130, 2, 64, 5, 270});
  for (const Shape& shape : kShapes) {
    const Inputs inputs(&rng, shape, cu_seqlens.back());
    const std::vector<AttentionSpan> spans = WholeSequences(cu_seqlens);
    const GuardedMatrix out = inputs.Attend(spans, &pool);
    out.ExpectWrittenExactly();
    for (const AttentionSpan& span : spans) {
      for (int64_t query = 0; query < span.q_count; query += 1 + span.q_count / 40) {
        for (int head = 0; head < shape.num_heads; ++head) {
          const std::vector<double> expected = inputs.Expected(span, query, head);
          const float* row = out.row(span.q_row + query) + head * shape.head_dim;
          for (int i = 0; i < shape.head_dim; ++i) {
            ASSERT_NEAR(row[i], expected[i], kTolerance) << shape.head_dim << " query " << query;
          }
        }
      }
    }
  }
}

TEST(AttentionTest, ASequenceIsBitIdenticalAloneAndPackedAndOnAnyNumberOfThreads) {
  std::mt19937 rng(2);
  ThreadPool two(2);
  ThreadPool five(5);
  const std::vector<int32_t> cu_seqlens = Packed({3, 150, 16, 31, 260});
  for (const Shape& shape : kShapes) {
    const Inputs inputs(&rng, shape, cu_seqlens.back());
    const std::vector<AttentionSpan> spans = WholeSequences(cu_seqlens);
    const auto all = inputs.Attend(spans, nullptr).Bits();
    EXPECT_EQ(inputs.Attend(spans, &two).Bits(), all);
    EXPECT_EQ(inputs.Attend(spans, &five).Bits(), all);
    for (const AttentionSpan& span : spans) {
      const GuardedMatrix alone = inputs.Attend({span}, &two);
      for (int64_t r = span.q_row; r < span.q_row + span.q_count; ++r) {
        ASSERT_EQ(alone.RowBits(r), all[r]);
      }
    }
  }
}

TEST(AttentionTest, QueriesAreBitIdenticalHoweverTheyAreDividedAmongSpans) {
  std::mt19937 rng(3);
  const int64_t length = 300;
  for (const Shape& shape : kShapes) {
    const Inputs inputs(&rng, shape, length);
    const auto whole = inputs.Attend(WholeSequences(Packed({length})), nullptr).Bits();
    std::vector<AttentionSpan> spans;
    for (int64_t first = 0; first < length;) {
      const int64_t count = std::min<int64_t>(length - first, 1 + static_cast<int64_t>(rng() % 90));
      spans.push_back(
          {.q_row = first, .q_count = count, .kv_row = 0, .kv_count = length, .q_position = first});
      first += count;
    }
    EXPECT_EQ(inputs.Attend(spans, nullptr).Bits(), whole);
  }
}

TEST(AttentionTest, WhereTheFirstKeysLieDoesNotChangeABit) {
  std::mt19937 rng(5);
  for (const Shape& shape : kShapes) {
    for (const int64_t prefix : {1, 30, 127, 128, 129, 200}) {
      const int64_t tokens = prefix + 40;
      const Inputs inputs(&rng, shape, tokens);
      const AttentionSpan whole = {
          .q_row = prefix, .q_count = 40, .kv_count = tokens, .q_position = prefix};
      const GuardedMatrix expected = inputs.Attend({whole}, nullptr);
      // The rows of the prefix begin at the second of its matrix.
      GuardedMatrix keys(prefix + 1, inputs.k.cols());
      GuardedMatrix values(prefix + 1, inputs.v.cols());
      for (int64_t row = 0; row < prefix; ++row) {
        std::copy_n(inputs.k.row(row), inputs.k.cols(), keys.row(row + 1));
        std::copy_n(inputs.v.row(row), inputs.v.cols(), values.row(row + 1));
      }
      ASSERT_EQ(keys.stride(), values.stride());
      GuardedMatrix out(tokens, inputs.q.cols());
      AttentionArgs args = inputs.Args(&out);
      args.prefix_k = keys.data();
      args.prefix_v = values.data();
      args.prefix_stride = keys.stride();
      const AttentionSpan apart = {.q_row = prefix,
                                   .q_count = 40,
                                   .kv_row = prefix,
                                   .kv_count = 40,
                                   .q_position = prefix,
                                   .prefix_row = 1,
                                   .prefix_count = prefix};
      Attention(args, {&apart, 1}, nullptr);
      for (int64_t row = prefix; row < tokens; ++row) {
        EXPECT_TRUE(std::equal(out.row(row), out.row(row) + out.cols(), expected.row(row)));
      }
    }
  }
}

TEST(AttentionTest, TheResultMayTakeTheQueriesPlace) {
  std::mt19937 rng(4);
  ThreadPool pool(2);
  for (const Shape& shape : kShapes) {
    Inputs inputs(&rng, shape, 200);
    const std::vector<AttentionSpan> spans = WholeSequences(Packed({120, 80}));
    const auto apart = inputs.Attend(spans, nullptr).Bits();
    Attention(inputs.Args(&inputs.q), spans, &pool);
    EXPECT_EQ(inputs.q.Bits(), apart);
  }
}

TEST(AttentionTest, HugeScoresNeitherOverflowNorVanish) {
  std::mt19937 rng(5);
  Inputs inputs(&rng, {1, 1, 32, false}, 200);
  for (int64_t r = 0; r < 200; ++r) {
    for (int64_t i = 0; i < 32; ++i) inputs.q.at(r, i) *= 3000;
  }
  const AttentionSpan span = WholeSequences(Packed({200}))[0];
  const GuardedMatrix out = inputs.Attend({span}, nullptr);
  for (int64_t query = 0; query < 200; ++query) {
    const std::vector<double> expected = inputs.Expected(span, query, 0);
    // Scores of about 1e4 are rounded by about 1e-3.
    for (int i = 0; i < 32; ++i) ASSERT_NEAR(out.at(query, i), expected[i], 3e-2);
  }
}

TEST(AttentionTest, ANanAmongTheKeysReachesEveryQueryThatSeesIt) {
  std::mt19937 rng(6);
  for (const bool causal : {false, true}) {
    Inputs inputs(&rng, {1, 1, 32, causal}, 200);
    inputs.k.at(150, 5) = std::numeric_limits<float>::quiet_NaN();
    const GuardedMatrix out = inputs.Attend(WholeSequences(Packed({200})), nullptr);
    for (int64_t query = causal ? 150 : 0; query < 200; ++query) {
      EXPECT_TRUE(std::isnan(out.at(query, 0))) << query;
    }
    for (int64_t query = 0; causal && query < 150; ++query) {
      EXPECT_TRUE(std::isfinite(out.at(query, 0))) << query;
    }
  }
}

TEST(AttentionTest, Avx512GivesTheBitsOfAvx2) {
  if (BestIsa() != Isa::kAvx512) GTEST_SKIP() << "needs AVX-512";
  std::mt19937 rng(7);
  for (const Shape& shape : kShapes) {
    const Inputs inputs(&rng, shape, 150);
    const int group = shape.num_heads / shape.num_kv_heads;
    const auto attend = [&](const AttentionKernel& kernel) {
      GuardedMatrix out(150, inputs.q.cols());
      GuardedMatrix scratch(1, AttentionScratch(150, group, shape.head_dim));
      AttentionTask task;
      task.q = inputs.q.data();
      task.k = inputs.k.data();
      task.v = inputs.v.data();
      task.out = out.data();
      task.queries = 150;
      task.heads = group;
      task.visible = shape.causal ? 1 : 150;
      task.visible_step = shape.causal ? 1 : 0;
      task.scratch = scratch.data();
      kernel.attend(inputs.Args(&out), task);
      return out.Bits();
    };
    EXPECT_EQ(attend(kAttentionAvx512), attend(kAttentionAvx2));
  }
}

}  // namespace
}  // namespace quiver::cpu
