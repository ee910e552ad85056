// The device's operators beside attention and products, against their CPU namesakes. Skipped where
// there is no device.
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/device_memory.h"

namespace quiver {
namespace {

constexpr float kEps = 1e-6f;
// Of F32 results of about 1: the two orders of summation.
constexpr double kF32Tolerance = 2e-5;
constexpr HalfType kTypes[] = {HalfType::kBf16, HalfType::kF16};
constexpr int64_t kDims[] = {8, 24, 128, 256, 384, 520, 768, 1024, 1032, 2560, 4096, 5000, 16384};

using OpsTest = DeviceTest;

FloatMatrix RandomVector(std::mt19937* rng, int64_t dim) {
  return FloatMatrix::Random(rng, 1, dim, HalfType::kBf16);
}

DeviceBuffer<int32_t> Indices(const std::vector<int32_t>& values) {
  return DeviceBuffer<int32_t>(values);
}

TEST_F(OpsTest, EmbeddingsHaveTheBitsOfTheCpu) {
  std::mt19937 rng(1);
  const std::vector<int32_t> ids = {4, 0, 30, 7, 7, 12, 29};
  const std::vector<int32_t> positions = {0, 1, 2, 0, 1, 9, 3};
  const auto rows = static_cast<int64_t>(ids.size());
  const auto device_ids = Indices(ids);
  const auto device_positions = Indices(positions);
  for (const int64_t dim : {8, 384, 1032, 2560}) {
    const auto f32 = FloatMatrix::Random(&rng, 31, dim, HalfType::kBf16, 0);
    const auto bf16 = HalfMatrix::Random(&rng, 31, dim, HalfType::kBf16, 0);
    const auto f16 = HalfMatrix::Random(&rng, 31, dim, HalfType::kF16, 0);
    const DeviceTable tables[] = {{cpu::StoredType::kF32, f32.device()},
                                  {cpu::StoredType::kBF16, bf16.device()},
                                  {cpu::StoredType::kF16, f16.device()}};
    const std::vector<float> floats[] = {f32.Floats(), bf16.Floats(), f16.Floats()};
    for (int i = 0; i < 3; ++i) {
      for (const bool sums : {false, true}) {
        const DeviceTable none;
        const cpu::EmbeddingTable no_table;
        const auto host = [&](int table) {
          return cpu::EmbeddingTable{cpu::StoredType::kF32, floats[table % 3].data()};
        };
        FloatMatrix out(rows, dim, HalfType::kBf16);
        ASSERT_CUDA(Embed(tables[i], sums ? tables[(i + 1) % 3] : none,
                          sums ? tables[(i + 2) % 3] : none, device_ids.get(),
                          device_positions.get(), rows, dim, out.device(), out.stride(), nullptr));
        out.Download();
        std::vector<float> expected(static_cast<size_t>(rows * dim));
        cpu::Embed(host(i), sums ? host(i + 1) : no_table, sums ? host(i + 2) : no_table,
                   ids.data(), positions.data(), rows, dim, expected.data(), dim, nullptr);
        ASSERT_EQ(out.Floats(), expected) << "table " << i << " sums " << sums << " dim " << dim;
      }
    }
  }
}

struct NormCase {
  bool is_layer_norm = false;
  HalfType type = HalfType::kBf16;
  bool has_delta = true;
  bool has_bias = false;
  std::vector<int32_t> residual_rows;
};

// Runs a norm on random rows and holds residual and output to the CPU's.
void ExpectNormIsRight(const NormCase& norm, int64_t rows, int64_t dim) {
  SCOPED_TRACE(testing::Message() << "rows " << rows << " dim " << dim << " layer norm "
                                  << norm.is_layer_norm << " f16 "
                                  << (norm.type == HalfType::kF16));
  std::mt19937 rng(static_cast<uint32_t>(dim));
  const int64_t residual_rows = norm.residual_rows.empty() ? rows : 50;
  FloatMatrix residual = FloatMatrix::Random(&rng, residual_rows, dim, norm.type);
  const auto delta = HalfMatrix::Random(&rng, rows, dim, norm.type);
  const FloatMatrix weight = RandomVector(&rng, dim);
  const FloatMatrix bias = RandomVector(&rng, dim);
  const FloatMatrix delta_bias = RandomVector(&rng, dim);

  std::vector<float> sum;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t from = norm.residual_rows.empty() ? r : norm.residual_rows[r];
    for (int64_t c = 0; c < dim; ++c) {
      float value = residual.at(from, c);
      if (norm.has_delta) value += delta.at(r, c);
      if (norm.has_bias) value += delta_bias.at(0, c);
      sum.push_back(value);
    }
  }
  std::vector<float> normed(sum.size());
  if (norm.is_layer_norm) {
    cpu::LayerNorm(sum.data(), dim, rows, dim, weight.Floats().data(), bias.Floats().data(), kEps,
                   normed.data(), dim, nullptr);
  } else {
    cpu::RmsNorm(sum.data(), dim, rows, dim, weight.Floats().data(), kEps, normed.data(), dim,
                 nullptr);
  }

  const auto indices = Indices(norm.residual_rows);
  FloatMatrix gathered(rows, dim, norm.type);
  FloatMatrix* residual_out = norm.residual_rows.empty() ? &residual : &gathered;
  HalfMatrix out(rows, dim, norm.type);
  NormTensors tensors;
  tensors.residual = residual.device();
  tensors.residual_stride = residual.stride();
  if (!norm.residual_rows.empty()) tensors.residual_rows = indices.get();
  if (norm.has_delta) tensors.delta = delta.device();
  tensors.delta_stride = delta.stride();
  if (norm.has_bias) tensors.delta_bias = delta_bias.device();
  tensors.residual_out = residual_out->device();
  tensors.residual_out_stride = residual_out->stride();
  tensors.out = out.device();
  tensors.out_stride = out.stride();
  tensors.rows = rows;
  tensors.dim = dim;
  tensors.type = norm.type;
  ASSERT_CUDA(norm.is_layer_norm
                  ? AddLayerNorm(tensors, weight.device(), bias.device(), kEps, nullptr)
                  : AddRmsNorm(tensors, weight.device(), kEps, nullptr));
  residual_out->Download();
  out.Download();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < dim; ++c) {
      const float want = normed[r * dim + c];
      ASSERT_NEAR(out.at(r, c), want, RoundingOf(norm.type, want) + kF32Tolerance)
          << "row " << r << " column " << c;
      if (norm.is_layer_norm) {
        ASSERT_NEAR(residual_out->at(r, c), want, kF32Tolerance) << "row " << r << " column " << c;
      } else {
        ASSERT_EQ(residual_out->at(r, c), sum[r * dim + c]) << "row " << r << " column " << c;
      }
    }
  }
}

TEST_F(OpsTest, NormsAreThoseOfTheCpu) {
  for (const bool is_layer_norm : {false, true}) {
    for (const HalfType type : kTypes) {
      for (const int64_t dim : kDims) {
        for (const int64_t rows : {1, 3, 33}) {
          ExpectNormIsRight({is_layer_norm, type, true, is_layer_norm, {}}, rows, dim);
        }
      }
    }
  }
}

TEST_F(OpsTest, NormsNeedNoDelta) {
  for (const bool is_layer_norm : {false, true}) {
    ExpectNormIsRight({is_layer_norm, HalfType::kBf16, false, false, {}}, 7, 384);
    ExpectNormIsRight({is_layer_norm, HalfType::kBf16, false, false, {}}, 7, 2560);
  }
}

TEST_F(OpsTest, NormsTakeTheRowsAskedFor) {
  for (const int64_t dim : {384, 1024, 2560}) {
    ExpectNormIsRight({false, HalfType::kBf16, false, false, {49, 0, 7, 7, 30}}, 5, dim);
    ExpectNormIsRight({false, HalfType::kF16, true, false, {49, 0, 7, 7, 30}}, 5, dim);
  }
}

TEST_F(OpsTest, NormedRowHasTheSameBitsAloneAndInABatch) {
  std::mt19937 rng(3);
  for (const int64_t dim : {384, 1024, 2560, 4096}) {
    const auto residual = FloatMatrix::Random(&rng, 300, dim, HalfType::kBf16);
    const auto delta = HalfMatrix::Random(&rng, 300, dim, HalfType::kBf16);
    const FloatMatrix weight = RandomVector(&rng, dim);
    const auto run = [&](int64_t first, int64_t rows, bool is_layer_norm) {
      HalfMatrix out(rows, dim, HalfType::kBf16);
      NormTensors tensors;
      tensors.residual = residual.device() + first * residual.stride();
      tensors.residual_stride = residual.stride();
      tensors.delta = delta.device() + first * delta.stride();
      tensors.delta_stride = delta.stride();
      tensors.out = out.device();
      tensors.out_stride = out.stride();
      tensors.rows = rows;
      tensors.dim = dim;
      EXPECT_EQ(is_layer_norm
                    ? AddLayerNorm(tensors, weight.device(), weight.device(), kEps, nullptr)
                    : AddRmsNorm(tensors, weight.device(), kEps, nullptr),
                cudaSuccess);
      out.Download();
      return out;
    };
    for (const bool is_layer_norm : {false, true}) {
      const HalfMatrix batch = run(0, 300, is_layer_norm);
      for (const int64_t r : {0, 1, 150, 299}) {
        EXPECT_EQ(run(r, 1, is_layer_norm).RowBits(0), batch.RowBits(r)) << dim;
      }
    }
  }
}

TEST_F(OpsTest, RopeTableIsTheCpusToTheLastDigitUpToTheLastPosition) {
  for (const auto& [head_dim, theta] : std::vector<std::pair<int, double>>{{128, 1e6}, {64, 1e4}}) {
    constexpr int64_t kPositions = 40960;
    DeviceBuffer<float> table(static_cast<size_t>(RopeTableFloats(kPositions, head_dim)));
    ASSERT_CUDA(MakeRopeTable(table.get(), kPositions, head_dim, theta, nullptr));
    ASSERT_CUDA(cudaDeviceSynchronize());
    const std::vector<float> got = table.ToHost();
    const cpu::RopeTable want(kPositions, head_dim, theta, nullptr);
    for (int64_t p = 0; p < kPositions; p += p < 32000 ? 61 : 1) {
      for (int i = 0; i < head_dim / 2; ++i) {
        // A double's last digit may decide a float's.
        ASSERT_NEAR(got[p * head_dim + i], want.cos(p)[i], 6e-8) << p;
        ASSERT_NEAR(got[p * head_dim + head_dim / 2 + i], want.sin(p)[i], 6e-8) << p;
      }
    }
  }
}

TEST_F(OpsTest, NormedAndRotatedHeadsAreThoseOfTheCpu) {
  std::mt19937 rng(4);
  const std::vector<int32_t> positions = {0, 1, 2, 500, 32767, 3, 999};
  const auto rows = static_cast<int64_t>(positions.size());
  const auto device_positions = Indices(positions);
  for (const int head_dim : {64, 128}) {
    const cpu::RopeTable host_table(32768, head_dim, 1e6, nullptr);
    DeviceBuffer<float> table(static_cast<size_t>(RopeTableFloats(32768, head_dim)));
    ASSERT_CUDA(MakeRopeTable(table.get(), 32768, head_dim, 1e6, nullptr));
    const FloatMatrix q_weight = RandomVector(&rng, head_dim);
    const FloatMatrix k_weight = RandomVector(&rng, head_dim);
    for (const HalfType type : kTypes) {
      for (const auto& [heads, kv_heads] : std::vector<std::pair<int, int>>{
               {32, 8}, {16, 8}, {6, 2}, {1, 1}, {3, 0}, {0, 5}, {300, 40}}) {
        for (const bool has_norm : {true, false}) {
          const int64_t cols = static_cast<int64_t>(heads + 2 * kv_heads) * head_dim;
          HalfMatrix qkv = HalfMatrix::Random(&rng, rows, cols, type);
          std::vector<float> want = qkv.Floats();
          const HalfMatrix before = qkv;
          cpu::QkNormRope(want.data(), cols, rows, heads,
                          has_norm ? q_weight.Floats().data() : nullptr, kEps, positions.data(),
                          host_table, nullptr);
          cpu::QkNormRope(want.data() + heads * head_dim, cols, rows, kv_heads,
                          has_norm ? k_weight.Floats().data() : nullptr, kEps, positions.data(),
                          host_table, nullptr);
          ASSERT_CUDA(QkNormRope({rows, heads, kv_heads, head_dim, type}, qkv.device(),
                                 qkv.stride(), has_norm && heads > 0 ? q_weight.device() : nullptr,
                                 has_norm && kv_heads > 0 ? k_weight.device() : nullptr, kEps,
                                 device_positions.get(), table.get(), nullptr));
          qkv.Download();
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < cols; ++c) {
              const bool is_value = c >= (heads + kv_heads) * head_dim;
              const float expected = is_value ? before.at(r, c) : want[r * cols + c];
              ASSERT_NEAR(qkv.at(r, c), expected,
                          is_value ? 0 : RoundingOf(type, expected) + kF32Tolerance)
                  << heads << "+" << kv_heads << " row " << r << " column " << c;
            }
          }
        }
      }
    }
  }
}

TEST_F(OpsTest, SwiGluIsSiluOfGateTimesUp) {
  std::mt19937 rng(5);
  for (const HalfType type : kTypes) {
    for (const int64_t cols : {8, 1024, 2056, 9728}) {
      for (const bool in_place : {false, true}) {
        HalfMatrix gate_up = HalfMatrix::Random(&rng, 9, 2 * cols, type);
        gate_up.Set(0, 0, -100);
        gate_up.Set(1, 0, 100);
        gate_up.Set(2, 0, 0);
        gate_up.Upload();
        const HalfMatrix before = gate_up;
        HalfMatrix dense(9, cols, type);
        HalfMatrix& out = in_place ? gate_up : dense;
        ASSERT_CUDA(SwiGlu(gate_up.device(), gate_up.stride(), 9, cols, out.device(), out.stride(),
                           type, nullptr));
        out.Download();
        for (int64_t r = 0; r < 9; ++r) {
          for (int64_t c = 0; c < cols; ++c) {
            const double gate = before.at(r, c);
            const double want = gate / (1 + std::exp(-gate)) * before.at(r, cols + c);
            ASSERT_NEAR(out.at(r, c), want, RoundingOf(type, want)) << r << " " << c;
          }
        }
      }
    }
  }
}

TEST_F(OpsTest, BiasedActivationsAreThoseOfTheCpu) {
  std::mt19937 rng(6);
  for (const HalfType type : kTypes) {
    for (const auto activation :
         {cpu::Activation::kNone, cpu::Activation::kGelu, cpu::Activation::kGeluTanh,
          cpu::Activation::kSilu, cpu::Activation::kRelu}) {
      for (const int64_t cols : {8, 1152, 1536, 4104}) {
        for (const bool has_bias : {false, true}) {
          HalfMatrix x = HalfMatrix::Random(&rng, 5, cols, type);
          for (int64_t c = 0; c < 8; ++c) x.Set(0, c, 4.0f * static_cast<float>(c) - 14);
          x.Upload();
          const FloatMatrix bias = RandomVector(&rng, cols);
          std::vector<float> want = x.Floats();
          if (has_bias) {
            for (size_t i = 0; i < want.size(); ++i) {
              want[i] += bias.at(0, static_cast<int64_t>(i) % cols);
            }
          }
          cpu::Activate(activation, want.data(), cols, 5, cols, nullptr);
          ASSERT_CUDA(BiasActivate(activation, has_bias ? bias.device() : nullptr, 5, cols,
                                   x.device(), x.stride(), type, nullptr));
          x.Download();
          const std::vector<float> got = x.Floats();
          for (size_t i = 0; i < got.size(); ++i) {
            ASSERT_NEAR(got[i], want[i], RoundingOf(type, want[i]))
                << "activation " << static_cast<int>(activation) << " element " << i;
          }
        }
      }
    }
  }
}

TEST_F(OpsTest, ShapesOutsideTheContractAreRefused) {
  const HalfMatrix half(4, 256, HalfType::kBf16);
  const FloatMatrix f32(4, 256, HalfType::kBf16);
  DeviceBuffer<int32_t> indices(4);
  EXPECT_EQ(SwiGlu(half.device() + 1, half.stride(), 4, 128, half.device(), half.stride(),
                   HalfType::kBf16, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(SwiGlu(half.device(), half.stride(), 4, 100, half.device(), half.stride(),
                   HalfType::kBf16, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(BiasActivate(cpu::Activation::kGelu, nullptr, 4, 256, half.device(), 255,
                         HalfType::kBf16, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(QkNormRope({4, 1, 1, 96, HalfType::kBf16}, half.device(), half.stride(), nullptr,
                       nullptr, kEps, indices.get(), f32.device(), nullptr),
            cudaErrorInvalidValue);
  NormTensors tensors;
  tensors.residual = f32.device();
  tensors.residual_stride = f32.stride();
  tensors.rows = 4;
  tensors.dim = 252;
  EXPECT_EQ(AddRmsNorm(tensors, f32.device(), kEps, nullptr), cudaErrorInvalidValue);
  tensors.dim = 16392;
  tensors.residual_stride = 16392;
  EXPECT_EQ(AddRmsNorm(tensors, f32.device(), kEps, nullptr), cudaErrorInvalidValue);
  ASSERT_CUDA(cudaDeviceSynchronize());
}

TEST_F(OpsTest, NothingIsDoneForNoRows) {
  HalfMatrix half(1, 256, HalfType::kBf16);
  const FloatMatrix f32(1, 256, HalfType::kBf16);
  DeviceBuffer<int32_t> indices(1);
  NormTensors tensors;
  tensors.residual = f32.device();
  tensors.residual_stride = f32.stride();
  tensors.dim = 256;
  EXPECT_EQ(AddRmsNorm(tensors, f32.device(), kEps, nullptr), cudaSuccess);
  EXPECT_EQ(SwiGlu(half.device(), half.stride(), 0, 128, half.device(), half.stride(),
                   HalfType::kBf16, nullptr),
            cudaSuccess);
  EXPECT_EQ(QkNormRope({0, 1, 1, 128, HalfType::kBf16}, half.device(), half.stride(), nullptr,
                       nullptr, kEps, indices.get(), f32.device(), nullptr),
            cudaSuccess);
  half.Download();
  EXPECT_EQ(half.RowBits(0), std::vector<uint16_t>(256, HalfMatrix::kPoison));
}

}  // namespace
}  // namespace quiver
