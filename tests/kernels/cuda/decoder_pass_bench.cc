// A decoder's pass of few tokens in one launch, beside a copy of as many bytes as its weights have:
// of 16 bits, of FP8, and of int4 in groups of 128.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/decoder_pass.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/int4_matrix.h"
#include "kernels/cuda/random_fill.h"
#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/bench_arguments.h"
#include "tests/kernels/cuda/bench_timing.h"

namespace {

using quiver::Allocate;
using quiver::Check;
using quiver::DecoderShape;
using quiver::DecoderTensors;
using quiver::DecoderWeightForm;
using quiver::DecoderWeights;
using quiver::HalfType;
using quiver::kDecoderHeadDim;
using quiver::kMaxDecoderRows;

struct Model {
  const char* name;
  DecoderShape shape;
};

DecoderShape Shape(int64_t hidden, int64_t inner, int layers, int heads, DecoderWeightForm form) {
  return {hidden, inner, layers, heads, 8, 1e-6f, HalfType::kBf16, form, 128};
}
constexpr DecoderWeightForm kHalf = DecoderWeightForm::kHalf;
constexpr DecoderWeightForm kFp8 = DecoderWeightForm::kFp8;
constexpr DecoderWeightForm kInt4 = DecoderWeightForm::kInt4;

const Model kModels[] = {
    {"0.6B", Shape(1024, 3072, 28, 16, kHalf)},      {"0.6B FP8", Shape(1024, 3072, 28, 16, kFp8)},
    {"0.6B int4", Shape(1024, 3072, 28, 16, kInt4)}, {"4B", Shape(2560, 9728, 36, 32, kHalf)},
    {"4B FP8", Shape(2560, 9728, 36, 32, kFp8)},     {"4B int4", Shape(2560, 9728, 36, 32, kInt4)},
    {"8B", Shape(4096, 12288, 36, 32, kHalf)},       {"8B FP8", Shape(4096, 12288, 36, 32, kFp8)},
    {"8B int4", Shape(4096, 12288, 36, 32, kInt4)},
};

int64_t MatrixBytes(const DecoderShape& shape, int64_t n, int64_t k) {
  switch (shape.form) {
    case DecoderWeightForm::kHalf:
      return 2 * n * k;
    case DecoderWeightForm::kFp8:
      return n * k;
    case DecoderWeightForm::kInt4:
      break;
  }
  return quiver::Int4Bytes(n, k, shape.int4_group);
}

// Of a layer.
int64_t MatrixBytes(const DecoderShape& shape) {
  return MatrixBytes(shape, shape.projection_width(), shape.hidden) +
         MatrixBytes(shape, shape.hidden, shape.query_width()) +
         MatrixBytes(shape, 2 * shape.inner, shape.hidden) +
         MatrixBytes(shape, shape.hidden, shape.inner);
}

// Random weights of one layer after another.
class Weights {
 public:
  Weights(const DecoderShape& shape, cudaStream_t stream) {
    const int64_t hidden = shape.hidden;
    const int64_t vectors =
        4 * hidden + 2 * kDecoderHeadDim + shape.projection_width() + 2 * shape.inner;
    weights_.layer_bytes = (MatrixBytes(shape) + vectors * 4 + 255) / 256 * 256;
    char* const base =
        static_cast<char*>(Allocate(static_cast<size_t>(weights_.layer_bytes * shape.num_layers)));
    for (int layer = shape.num_layers - 1; layer >= 0; --layer) {
      char* at = base + layer * weights_.layer_bytes;
      const auto matrix = [&](int64_t n, int64_t k, const float** scales) {
        char* const begin = at;
        at += MatrixBytes(shape, n, k);
        auto* const row_scales = reinterpret_cast<float*>(at);
        if (shape.form == DecoderWeightForm::kFp8) at += n * 4;
        *scales = row_scales;
        const float range = std::sqrt(3.0f / static_cast<float>(k));
        ++seed_;
        switch (shape.form) {
          case DecoderWeightForm::kHalf:
            Check(quiver::RandomFill({.mean = 0, .range = range, .seed = seed_},
                                     quiver::cpu::StoredType::kBF16, n * k, begin, stream));
            break;
          case DecoderWeightForm::kFp8:
            Check(quiver::RandomFp8(range, seed_, n, k, begin, row_scales, stream));
            break;
          case DecoderWeightForm::kInt4:
            Check(quiver::RandomInt4(range, seed_, {begin, n, k, shape.int4_group, shape.type},
                                     stream));
            break;
        }
        return begin;
      };
      const auto vector = [&](int64_t n) {
        auto* const begin = reinterpret_cast<float*>(at);
        Check(quiver::RandomFill({.mean = 1, .range = 0.1f, .seed = ++seed_},
                                 quiver::cpu::StoredType::kF32, n, begin, stream));
        at += n * 4;
        return begin;
      };
      weights_.qkv = matrix(shape.projection_width(), hidden, &weights_.qkv_scales);
      weights_.output = matrix(hidden, shape.query_width(), &weights_.output_scales);
      weights_.gate_up = matrix(2 * shape.inner, hidden, &weights_.gate_up_scales);
      weights_.down = matrix(hidden, shape.inner, &weights_.down_scales);
      weights_.input_norm = vector(hidden);
      weights_.mlp_norm = vector(hidden);
      weights_.query_norm = vector(kDecoderHeadDim);
      weights_.key_norm = vector(kDecoderHeadDim);
    }
    base_ = base;
  }
  ~Weights() { cudaFree(base_); }

  const DecoderWeights& get() const { return weights_; }

 private:
  DecoderWeights weights_;
  uint64_t seed_ = 0;
  void* base_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 15);
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  std::FILE* json =
      arguments.json_path.empty() ? nullptr : std::fopen(arguments.json_path.c_str(), "w");
  if (json != nullptr) std::fprintf(json, "{\"device\": \"%s\", \"rows\": [", properties.name);
  std::printf("%s, x of BF16, median of %d rounds\n", properties.name, arguments.rounds);
  std::printf("%-10s %5s %8s %11s %8s %10s %6s\n", "model", "rows", "ms", "us a layer", "GB/s",
              "copy GB/s", "ratio");

  const size_t copy_bytes = size_t{1} << 30;
  void* from = Allocate(copy_bytes);
  void* to = Allocate(copy_bytes);
  std::vector<int32_t> positions(kMaxDecoderRows);
  for (int i = 0; i < kMaxDecoderRows; ++i) positions[i] = i;
  auto* device_positions = static_cast<int32_t*>(Allocate(positions.size() * 4));
  Check(
      cudaMemcpy(device_positions, positions.data(), positions.size() * 4, cudaMemcpyHostToDevice));
  auto* table = static_cast<float*>(Allocate(kMaxDecoderRows * kDecoderHeadDim * 4));
  Check(quiver::MakeRopeTable(table, kMaxDecoderRows, kDecoderHeadDim, 1e6, stream));
  const char* separator = "";
  for (const Model& model : kModels) {
    const DecoderShape& shape = model.shape;
    const Weights weights(shape, stream);
    const size_t workspace_bytes = DecoderWorkspaceBytes(shape);
    DecoderTensors tensors;
    auto* residual =
        static_cast<float*>(Allocate(static_cast<size_t>(kMaxDecoderRows * shape.hidden) * 4));
    Check(quiver::RandomFill({.mean = 0, .range = 2, .seed = 1}, quiver::cpu::StoredType::kF32,
                             kMaxDecoderRows * shape.hidden, residual, stream));
    tensors.residual = residual;
    tensors.positions = device_positions;
    tensors.rope_table = table;
    tensors.pooled_rows = device_positions;
    tensors.num_pooled = 1;
    tensors.out = static_cast<float*>(Allocate(static_cast<size_t>(shape.hidden) * 4));
    tensors.workspace = Allocate(workspace_bytes);
    Check(cudaMemsetAsync(tensors.workspace, 0, workspace_bytes, stream));
    for (const int rows : {1, 32}) {
      tensors.rows = rows;
      const quiver::Graph graph(stream,
                                [&] { Check(DecoderPass(shape, weights.get(), tensors, stream)); });
      std::vector<double> pass_ms;
      std::vector<double> copy_ms;
      for (int round = -2; round < arguments.rounds; ++round) {
        const double ms = quiver::Time(1, stream, [&] { graph.Run(); });
        const double copy = quiver::CopyMs(copy_bytes, from, to, stream);
        if (round < 0) continue;
        pass_ms.push_back(ms);
        copy_ms.push_back(copy);
      }
      const double ms = quiver::Median(pass_ms);
      const double rate = static_cast<double>(MatrixBytes(shape) * shape.num_layers) / ms * 1e-6;
      const double copy_rate =
          2.0 * static_cast<double>(copy_bytes) / quiver::Median(copy_ms) * 1e-6;
      std::printf("%-10s %5d %8.3f %11.2f %8.0f %10.0f %6.3f\n", model.name, rows, ms,
                  ms * 1e3 / shape.num_layers, rate, copy_rate, rate / copy_rate);
      if (json != nullptr) {
        std::fprintf(json,
                     "%s\n  {\"model\": \"%s\", \"rows\": %d, \"ms\": %.4f, \"gb_per_s\": %.1f, "
                     "\"copy_gb_per_s\": %.1f}",
                     separator, model.name, rows, ms, rate, copy_rate);
      }
      separator = ",";
    }
  }
  if (json != nullptr) {
    std::fprintf(json, "\n]}\n");
    std::fclose(json);
  }
  return 0;
}
