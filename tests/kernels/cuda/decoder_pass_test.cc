// The decoder's pass in one launch against plain arithmetic. Skipped where there is no Hopper
// device.
#include "kernels/cuda/decoder_pass.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/device_memory.h"
#include "tests/kernels/cuda/few_rows_product.h"
#include "tests/kernels/cuda/fp8_value.h"
#include "tests/kernels/cuda/int4_source.h"

namespace quiver {
namespace {

constexpr int64_t kMaxPositions = 64;
constexpr double kTheta = 1e6;

using Rows = std::vector<std::vector<double>>;

// Of a matrix [n, k], as the device has it and by plain arithmetic.
struct Matrix {
  int64_t codes = 0;  // offsets
  int64_t scales = 0;
  std::vector<float> values;
};

// Random weights on the host and on the device.
class Model {
 public:
  Model(const DecoderShape& shape, uint32_t seed) : shape_(shape), rng_(seed) {
    for (int i = 0; i < shape.num_layers; ++i) {
      Layer layer;
      layer.input_norm = Vector(shape.hidden);
      layer.qkv = RandomMatrix(shape.projection_width(), shape.hidden);
      layer.query_norm = Vector(kDecoderHeadDim);
      layer.key_norm = Vector(kDecoderHeadDim);
      layer.output = RandomMatrix(shape.hidden, shape.query_width());
      layer.mlp_norm = Vector(shape.hidden);
      layer.gate_up = RandomMatrix(2 * shape.inner, shape.hidden);
      layer.down = RandomMatrix(shape.hidden, shape.inner);
      layers_.push_back(layer);
      if (i == 0) layer_bytes_ = static_cast<int64_t>(bytes_.size());
    }
    device_ = std::make_unique<DeviceBuffer<unsigned char>>(bytes_);
  }

  const DecoderShape& shape() const { return shape_; }

  DecoderWeights weights() const {
    const unsigned char* base = device_->get();
    const auto floats = [&](int64_t at) { return reinterpret_cast<const float*>(base + at); };
    const Layer& first = layers_[0];
    DecoderWeights weights = {.input_norm = floats(first.input_norm),
                              .qkv = base + first.qkv.codes,
                              .query_norm = floats(first.query_norm),
                              .key_norm = floats(first.key_norm),
                              .output = base + first.output.codes,
                              .mlp_norm = floats(first.mlp_norm),
                              .gate_up = base + first.gate_up.codes,
                              .down = base + first.down.codes,
                              .layer_bytes = layer_bytes_};
    if (shape_.form == DecoderWeightForm::kFp8) {
      weights.qkv_scales = floats(first.qkv.scales);
      weights.output_scales = floats(first.output.scales);
      weights.gate_up_scales = floats(first.gate_up.scales);
      weights.down_scales = floats(first.down.scales);
    }
    return weights;
  }

  // What the layers make of `x`, in double.
  Rows Run(Rows x, const std::vector<int32_t>& positions) const {
    for (const Layer& layer : layers_) {
      Add(Product(
              layer.output, shape_.hidden,
              Attention(layer,
                        Product(layer.qkv, shape_.projection_width(), Norm(x, layer.input_norm)),
                        positions)),
          &x);
      Rows inner = Product(layer.gate_up, 2 * shape_.inner, Norm(x, layer.mlp_norm));
      for (std::vector<double>& row : inner) {
        for (int64_t i = 0; i < shape_.inner; ++i) {
          row[i] = row[i] / (1 + std::exp(-row[i])) * row[shape_.inner + i];
        }
        row.resize(static_cast<size_t>(shape_.inner));
      }
      Add(Product(layer.down, shape_.hidden, inner), &x);
    }
    return x;
  }

 private:
  // Offsets of vectors.
  struct Layer {
    int64_t input_norm, query_norm, key_norm, mlp_norm;
    Matrix qkv, output, gate_up, down;
  };

  int64_t Take(const void* data, size_t size) {
    const size_t at = (bytes_.size() + 255) / 256 * 256;
    bytes_.resize((at + size + 255) / 256 * 256);
    std::memcpy(bytes_.data() + at, data, size);
    return static_cast<int64_t>(at);
  }
  int64_t Vector(int64_t n) {
    std::uniform_real_distribution<float> near_one(0.5f, 1.5f);
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = near_one(rng_);
    return Take(values.data(), values.size() * 4);
  }
  // About as long a row after the product as before.
  Matrix RandomMatrix(int64_t n, int64_t k) {
    switch (shape_.form) {
      case DecoderWeightForm::kHalf:
        return HalfMatrixOf(n, k);
      case DecoderWeightForm::kFp8:
        return Fp8MatrixOf(n, k);
      case DecoderWeightForm::kInt4:
        break;
    }
    return Int4MatrixOf(n, k);
  }
  Matrix HalfMatrixOf(int64_t n, int64_t k) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(k)));
    Matrix matrix;
    std::vector<uint16_t> bits(static_cast<size_t>(n * k));
    for (uint16_t& each : bits) {
      each = NarrowToHalf(normal(rng_), shape_.type);
      matrix.values.push_back(WidenHalf(each, shape_.type));
    }
    matrix.codes = Take(bits.data(), bits.size() * 2);
    return matrix;
  }
  Matrix Fp8MatrixOf(int64_t n, int64_t k) {
    std::uniform_real_distribution<float> near_one(0.5f, 1.5f);
    Matrix matrix;
    std::vector<uint8_t> codes(static_cast<size_t>(n * k));
    std::vector<float> scales(static_cast<size_t>(n));
    // Of codes of any bits: the root of their mean square.
    constexpr float kLength = 140;
    for (float& scale : scales) {
      scale = near_one(rng_) / kLength / std::sqrt(static_cast<float>(k));
    }
    for (size_t i = 0; i < codes.size(); ++i) {
      do codes[i] = static_cast<uint8_t>(rng_());
      while ((codes[i] & 0x7f) == 0x7f);
      matrix.values.push_back(Fp8Value(codes[i]) * scales[i / static_cast<size_t>(k)]);
    }
    matrix.codes = Take(codes.data(), codes.size());
    matrix.scales = Take(scales.data(), scales.size() * 4);
    return matrix;
  }
  Matrix Int4MatrixOf(int64_t n, int64_t k) {
    // Of values from 0 to 15 around zeros from 0 to 16: likewise.
    constexpr float kLength = 6.7f;
    const float scale = 1 / kLength / std::sqrt(static_cast<float>(k));
    const RandomInt4Weight weight(&rng_, n, k, shape_.int4_group, shape_.type, scale);
    std::vector<uint8_t> packed(static_cast<size_t>(Int4Bytes(n, k, shape_.int4_group)));
    EXPECT_EQ(
        cudaMemcpy(packed.data(), weight.matrix().data, packed.size(), cudaMemcpyDeviceToHost),
        cudaSuccess);
    Matrix matrix;
    matrix.values = weight.Floats();
    matrix.codes = Take(packed.data(), packed.size());
    return matrix;
  }
  const float* Floats(int64_t at) const {
    return reinterpret_cast<const float*>(bytes_.data() + at);
  }

  static Rows Product(const Matrix& weight, int64_t n, const Rows& x) {
    const auto k = static_cast<int64_t>(x[0].size());
    Rows y(x.size(), std::vector<double>(static_cast<size_t>(n)));
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        const double value = weight.values[static_cast<size_t>(i * k + j)];
        for (size_t r = 0; r < x.size(); ++r) y[r][i] += value * x[r][j];
      }
    }
    return y;
  }
  void NormSpan(double* x, int64_t n, int64_t weight) const {
    const double square = std::inner_product(x, x + n, x, 0.0);
    const double factor = 1 / std::sqrt(square / static_cast<double>(n) + shape_.norm_eps);
    for (int64_t i = 0; i < n; ++i) x[i] *= factor * Floats(weight)[i];
  }
  Rows Norm(Rows x, int64_t weight) const {
    for (std::vector<double>& row : x) NormSpan(row.data(), shape_.hidden, weight);
    return x;
  }
  static void Add(const Rows& y, Rows* x) {
    for (size_t r = 0; r < y.size(); ++r) {
      for (size_t i = 0; i < y[r].size(); ++i) (*x)[r][i] += y[r][i];
    }
  }
  Rows Attention(const Layer& layer, Rows qkv, const std::vector<int32_t>& positions) const {
    const int queries = shape_.num_heads;
    const int keys = shape_.num_kv_heads;
    constexpr int kHalf = kDecoderHeadDim / 2;
    for (size_t r = 0; r < qkv.size(); ++r) {
      for (int h = 0; h < queries + keys; ++h) {
        double* head = &qkv[r][h * kDecoderHeadDim];
        NormSpan(head, kDecoderHeadDim, h < queries ? layer.query_norm : layer.key_norm);
        for (int i = 0; i < kHalf; ++i) {
          const double angle = positions[r] * std::pow(kTheta, -i / static_cast<double>(kHalf));
          const double x = head[i];
          const double y = head[kHalf + i];
          head[i] = x * std::cos(angle) - y * std::sin(angle);
          head[kHalf + i] = y * std::cos(angle) + x * std::sin(angle);
        }
      }
    }
    Rows out(qkv.size(), std::vector<double>(static_cast<size_t>(shape_.query_width())));
    for (size_t r = 0; r < qkv.size(); ++r) {
      for (int h = 0; h < queries; ++h) {
        const int key_head = queries + h / (queries / keys);
        const double* query = &qkv[r][h * kDecoderHeadDim];
        double total = 0;
        for (size_t j = r - positions[r]; j <= r; ++j) {
          const double* key = &qkv[j][key_head * kDecoderHeadDim];
          const double* value = key + keys * kDecoderHeadDim;
          const double weight =
              std::exp(std::inner_product(query, query + kDecoderHeadDim, key, 0.0) /
                       std::sqrt(static_cast<double>(kDecoderHeadDim)));
          total += weight;
          for (int i = 0; i < kDecoderHeadDim; ++i) {
            out[r][h * kDecoderHeadDim + i] += weight * value[i];
          }
        }
        for (int i = 0; i < kDecoderHeadDim; ++i) out[r][h * kDecoderHeadDim + i] /= total;
      }
    }
    return out;
  }

  const DecoderShape shape_;
  std::mt19937 rng_;
  std::vector<unsigned char> bytes_;
  std::vector<Layer> layers_;
  int64_t layer_bytes_ = 0;
  std::unique_ptr<DeviceBuffer<unsigned char>> device_;
};

struct Format {
  const char* name;
  HalfType type;
  DecoderWeightForm form = DecoderWeightForm::kHalf;
  int int4_group = 0;
};
// Of a whole row's length, from operands that are rounded at every product of three layers. Random
// int4's groups each have a mean, with which rows grow, and errors.
double ToleranceOf(const Format& format) {
  const double tolerance = format.type == HalfType::kF16 ? 3e-3 : 2e-2;
  return format.form == DecoderWeightForm::kInt4 ? 2 * tolerance : tolerance;
}
std::ostream& operator<<(std::ostream& out, const Format& format) { return out << format.name; }

class DecoderPassTest : public HopperTest, public testing::WithParamInterface<Format> {
 protected:
  void SetUp() override {
    HopperTest::SetUp();
    if (IsSkipped()) return;
    table_ = std::make_unique<DeviceBuffer<float>>(
        static_cast<size_t>(RopeTableFloats(kMaxPositions, kDecoderHeadDim)));
    ASSERT_CUDA(MakeRopeTable(table_->get(), kMaxPositions, kDecoderHeadDim, kTheta, nullptr));
  }

  static DecoderShape Shape() {
    return {.hidden = 384,
            .inner = 1088,
            .num_layers = 3,
            .num_heads = 6,
            .num_kv_heads = 2,
            .norm_eps = 1e-6f,
            .type = GetParam().type,
            .form = GetParam().form,
            .int4_group = GetParam().int4_group};
  }

  static std::vector<int32_t> Positions(const std::vector<int>& lengths) {
    std::vector<int32_t> positions;
    for (const int length : lengths) {
      for (int i = 0; i < length; ++i) positions.push_back(i);
    }
    return positions;
  }

  static Rows RandomRows(std::mt19937* rng, size_t rows, int64_t hidden) {
    std::normal_distribution<float> normal;
    Rows x(rows, std::vector<double>(static_cast<size_t>(hidden)));
    for (std::vector<double>& row : x) {
      for (double& value : row) value = normal(*rng);
    }
    return x;
  }

  // All rows of the device's result, asked for from the last to the first.
  Rows RunOnDevice(const Model& model, const Rows& x, const std::vector<int32_t>& positions) {
    const DecoderShape& shape = model.shape();
    if (workspace_ == nullptr) {
      workspace_ = std::make_unique<DeviceBuffer<unsigned char>>(
          std::vector<unsigned char>(DecoderWorkspaceBytes(shape)));
    }
    std::vector<float> values;
    std::vector<int32_t> pooled;
    for (const std::vector<double>& row : x) {
      for (const double value : row) values.push_back(static_cast<float>(value));
      pooled.insert(pooled.begin(), static_cast<int32_t>(pooled.size()));
    }
    const DeviceBuffer<float> residual(values);
    const DeviceBuffer<int32_t> device_positions(positions);
    const DeviceBuffer<int32_t> pooled_rows(pooled);
    const DeviceBuffer<float> out(
        std::vector<float>(values.size(), std::numeric_limits<float>::quiet_NaN()));
    const DecoderTensors tensors = {.residual = residual.get(),
                                    .rows = static_cast<int>(x.size()),
                                    .positions = device_positions.get(),
                                    .rope_table = table_->get(),
                                    .pooled_rows = pooled_rows.get(),
                                    .num_pooled = static_cast<int>(x.size()),
                                    .out = out.get(),
                                    .workspace = workspace_->get()};
    EXPECT_EQ(DecoderPass(shape, model.weights(), tensors, nullptr), cudaSuccess);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<float> got = out.ToHost();
    Rows rows;
    for (size_t r = 0; r < x.size(); ++r) {
      const auto from = got.begin() + static_cast<int64_t>(x.size() - 1 - r) * shape.hidden;
      rows.emplace_back(from, from + shape.hidden);
    }
    return rows;
  }

  static void ExpectNear(const Rows& got, const Rows& want, double tolerance) {
    for (size_t r = 0; r < want.size(); ++r) {
      double error = 0;
      double length = 0;
      for (size_t i = 0; i < want[r].size(); ++i) {
        error += (got[r][i] - want[r][i]) * (got[r][i] - want[r][i]);
        length += want[r][i] * want[r][i];
      }
      EXPECT_LE(std::sqrt(error / length), tolerance) << "row " << r << " of " << want.size();
    }
  }

  std::unique_ptr<DeviceBuffer<float>> table_;
  std::unique_ptr<DeviceBuffer<unsigned char>> workspace_;
};

TEST_P(DecoderPassTest, LayersAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  const Model model(Shape(), 2);
  for (const std::vector<int>& lengths : std::vector<std::vector<int>>{
           {1}, {2}, {7}, {8}, {31}, {32}, {5, 27}, {1, 1, 14, 9, 6, 1}, {16, 9}}) {
    const std::vector<int32_t> positions = Positions(lengths);
    const Rows x = RandomRows(&rng, positions.size(), model.shape().hidden);
    ExpectNear(RunOnDevice(model, x, positions), model.Run(x, positions), ToleranceOf(GetParam()));
  }
}

// Many tiles for each block, and tiles that many blocks share.
TEST_P(DecoderPassTest, LayerOfALargeModelIsThatOfPlainArithmetic) {
  std::mt19937 rng(3);
  DecoderShape shape = Shape();
  shape.hidden = 2560;
  shape.inner = 9728;
  shape.num_heads = 32;
  shape.num_kv_heads = 8;
  shape.num_layers = 1;
  const Model model(shape, 4);
  const std::vector<int32_t> positions = Positions({2, 3});
  const Rows x = RandomRows(&rng, positions.size(), shape.hidden);
  ExpectNear(RunOnDevice(model, x, positions), model.Run(x, positions), ToleranceOf(GetParam()));
}

TEST_P(DecoderPassTest, PassesInARowAgree) {
  std::mt19937 rng(5);
  const Model model(Shape(), 6);
  const std::vector<int32_t> positions = Positions({20, 12});
  const Rows x = RandomRows(&rng, positions.size(), model.shape().hidden);
  const Rows first = RunOnDevice(model, x, positions);
  for (int i = 0; i < 50; ++i) {
    ExpectNear(RunOnDevice(model, x, positions), first, ToleranceOf(GetParam()));
  }
}

TEST_P(DecoderPassTest, BadSequenceStaysAlone) {
  std::mt19937 rng(7);
  const Model model(Shape(), 8);
  const std::vector<int32_t> positions = Positions({11, 6, 15});
  Rows x = RandomRows(&rng, positions.size(), model.shape().hidden);
  const Rows want = RunOnDevice(model, x, positions);
  for (double& value : x[13]) value = std::numeric_limits<double>::infinity();
  const Rows got = RunOnDevice(model, x, positions);
  for (size_t r = 0; r < x.size(); ++r) {
    if (r < 13 || r > 16) {
      ExpectNear({got[r]}, {want[r]}, ToleranceOf(GetParam()));
    } else {
      EXPECT_FALSE(std::isfinite(got[r][0])) << r;
    }
  }
}

TEST_P(DecoderPassTest, WhatIsOutsideOfTheContractIsRefused) {
  const Model model(Shape(), 9);
  DecoderTensors tensors;
  EXPECT_EQ(DecoderPass(model.shape(), model.weights(), tensors, nullptr), cudaErrorInvalidValue);
  DecoderShape odd = Shape();
  odd.hidden = 320;
  bool is_supported = true;
  ASSERT_CUDA(DecoderPassIsSupported(odd, &is_supported));
  EXPECT_FALSE(is_supported);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, DecoderPassTest,
    testing::Values(Format{"Bf16", HalfType::kBf16}, Format{"F16", HalfType::kF16},
                    Format{"Fp8", HalfType::kBf16, DecoderWeightForm::kFp8},
                    Format{"Fp8AndF16", HalfType::kF16, DecoderWeightForm::kFp8},
                    Format{"Int4Of32", HalfType::kBf16, DecoderWeightForm::kInt4, 32},
                    Format{"Int4Of64", HalfType::kBf16, DecoderWeightForm::kInt4, 64},
                    Format{"Int4Of128", HalfType::kBf16, DecoderWeightForm::kInt4, 128},
                    Format{"Int4Of128AndF16", HalfType::kF16, DecoderWeightForm::kInt4, 128}),
    [](const testing::TestParamInfo<Format>& format) { return format.param.name; });

}  // namespace
}  // namespace quiver
