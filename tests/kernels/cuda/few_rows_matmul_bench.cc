// Times the product for few rows on the shapes of a Qwen3-Embedding-4B layer, by the kernel of
// choice and the portable one, beside a copy and cuBLASLt measured in the same run; then whole
// passes of the model's layers from these kernels. Each call has a weight of its own, 36 of them
// (7.27 GB in all), so that the cache holds none. Random data; medians of interleaved rounds of
// graphs.
//
//   few_rows_matmul_bench [--json FILE] [rounds]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/few_rows_kernels.h"
#include "kernels/cuda/few_rows_matmul.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_arguments.h"
#include "tests/kernels/cuda/bench_timing.h"
#include "tests/kernels/cuda/cublas_product.h"
#include "tests/kernels/cuda/layers_bench.h"

namespace {

using quiver::Allocate;
using quiver::Check;
using quiver::CublasProduct;
using quiver::HalfType;

constexpr int kLayers = 36;
constexpr int kMaxRows = quiver::kMaxFewRows;
constexpr int64_t kHidden = 2560;
constexpr int64_t kIntermediate = 9728;
constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;
constexpr int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim;
constexpr float kEps = 1e-6f;

struct Way {
  const char* name;
  cudaError_t (*multiply)(const quiver::FewRowsTensors& tensors, cudaStream_t stream);
};

const Way kWays[] = {{"chosen", quiver::FewRowsMatmul}, {"portable", quiver::FewRowsSm80}};

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
  std::vector<void*> weights;  // one a layer
};

// x, and y of the widest shape.
struct Activations {
  void* x = Allocate(kMaxRows * kIntermediate * 2);
  void* y = Allocate(kMaxRows * 2 * kIntermediate * 2);
};

void FewRows(const Way& way, const void* x, int64_t k, const void* weight, void* y, int64_t n,
             int rows, void* workspace, cudaStream_t stream) {
  quiver::FewRowsTensors tensors;
  tensors.x = x;
  tensors.x_stride = k;
  tensors.weight = weight;
  tensors.y = y;
  tensors.y_stride = n;
  tensors.rows = rows;
  tensors.out_features = n;
  tensors.in_features = k;
  tensors.workspace = workspace;
  Check(way.multiply(tensors, stream));
}

// One pass of one sequence through all layers: from the residual to the residual.
class Pass {
 public:
  Pass(const Way& way, const std::vector<Shape>& shapes, int rows, void* workspace)
      : way_(way), shapes_(shapes), rows_(rows), workspace_(workspace) {
    std::vector<int32_t> positions;
    for (int i = 0; i < rows; ++i) positions.push_back(i);
    Check(cudaMemcpy(positions_, positions.data(), positions.size() * 4, cudaMemcpyHostToDevice));
    const std::vector<float> ones(kIntermediate, 1.0f);
    Check(cudaMemcpy(weight_, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
    Check(quiver::MakeRopeTable(table_, kMaxRows, kHeadDim, 1e6, nullptr));
    std::vector<float> residual;
    for (int64_t i = 0; i < kMaxRows * kHidden; ++i) {
      residual.push_back(static_cast<float>(i * 7919 % 1009) / 504 - 1);
    }
    Check(cudaMemcpy(residual_, residual.data(), residual.size() * 4, cudaMemcpyHostToDevice));
    Check(cudaMemset(counters_, 0, 8));
    quiver::AttentionPath path;
    Check(quiver::BestAttentionPath(&path));
    plan_ = quiver::PlanAttention(shape_, path, {{0, 0, rows, 0, rows}}, {});
    const size_t bytes = plan_.tiles.size() * sizeof(plan_.tiles[0]);
    auto* tiles = static_cast<quiver::AttentionTile*>(Allocate(bytes));
    Check(cudaMemcpy(tiles, plan_.tiles.data(), bytes, cudaMemcpyHostToDevice));
    auto* qkv = static_cast<uint16_t*>(qkv_);
    attention_.q = qkv;
    attention_.k = qkv + kHeads * kHeadDim;
    attention_.v = qkv + (kHeads + kKvHeads) * kHeadDim;
    attention_.out = heads_;
    attention_.q_stride = attention_.k_stride = attention_.v_stride = kQkv;
    attention_.out_stride = kHeads * kHeadDim;
    attention_.q_rows = attention_.kv_rows = rows;
    attention_.tiles = tiles;
    attention_.counters = static_cast<int32_t*>(counters_);
    Check(cudaDeviceSynchronize());
  }

  void Run(cudaStream_t stream) const {
    for (int layer = 0; layer < kLayers; ++layer) {
      Norm(layer > 0, stream);
      Product(0, layer, normed_, qkv_, stream);
      Check(quiver::QkNormRope({rows_, kHeads, kKvHeads, kHeadDim, HalfType::kBf16}, qkv_, kQkv,
                               weight_, weight_, kEps, positions_, table_, stream));
      for (const auto& launch : plan_.launches) {
        Check(quiver::Attention(shape_, launch, attention_, 1 / std::sqrt(128.0f), stream));
      }
      Product(1, layer, heads_, delta_, stream);
      Norm(true, stream);
      Product(2, layer, normed_, gate_up_, stream);
      Check(quiver::SwiGlu(gate_up_, 2 * kIntermediate, rows_, kIntermediate, gate_up_,
                           2 * kIntermediate, HalfType::kBf16, stream));
      // The product takes the gates' place, so its rows are as far apart as they were.
      quiver::FewRowsTensors tensors;
      tensors.x = gate_up_;
      tensors.x_stride = 2 * kIntermediate;
      tensors.weight = shapes_[3].weights[static_cast<size_t>(layer)];
      tensors.y = delta_;
      tensors.y_stride = kHidden;
      tensors.rows = rows_;
      tensors.out_features = kHidden;
      tensors.in_features = kIntermediate;
      tensors.workspace = workspace_;
      Check(way_.multiply(tensors, stream));
    }
  }

 private:
  void Norm(bool has_delta, cudaStream_t stream) const {
    quiver::NormTensors tensors;
    tensors.residual = tensors.residual_out = residual_;
    tensors.residual_stride = tensors.residual_out_stride = kHidden;
    if (has_delta) tensors.delta = delta_;
    tensors.delta_stride = kHidden;
    tensors.out = normed_;
    tensors.out_stride = kHidden;
    tensors.rows = rows_;
    tensors.dim = kHidden;
    Check(quiver::AddRmsNorm(tensors, weight_, kEps, stream));
  }

  void Product(size_t shape, int layer, const void* x, void* y, cudaStream_t stream) const {
    FewRows(way_, x, shapes_[shape].k, shapes_[shape].weights[static_cast<size_t>(layer)], y,
            shapes_[shape].n, rows_, workspace_, stream);
  }

  const Way& way_;
  const std::vector<Shape>& shapes_;
  int rows_;
  void* workspace_;
  quiver::AttentionShape shape_ = {kHeads, kKvHeads, kHeadDim, true, HalfType::kBf16};
  quiver::AttentionPlan plan_;
  quiver::AttentionTensors attention_;
  float* residual_ = static_cast<float*>(Allocate(kMaxRows * kHidden * 4));
  float* weight_ = static_cast<float*>(Allocate(kIntermediate * 4));
  float* table_ = static_cast<float*>(Allocate(kMaxRows * kHeadDim * 4));
  int32_t* positions_ = static_cast<int32_t*>(Allocate(kMaxRows * 4));
  void* counters_ = Allocate(8);
  void* normed_ = Allocate(kMaxRows * kHidden * 2);
  void* qkv_ = Allocate(kMaxRows * kQkv * 2);
  void* heads_ = Allocate(kMaxRows * kHeads * kHeadDim * 2);
  void* delta_ = Allocate(kMaxRows * kHidden * 2);
  void* gate_up_ = Allocate(kMaxRows * 2 * kIntermediate * 2);
};

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 7);
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

  std::vector<Shape> shapes = {{"qkv", kQkv, kHidden, {}},
                               {"o", kHidden, kHeads * kHeadDim, {}},
                               {"gate, up", 2 * kIntermediate, kHidden, {}},
                               {"down", kHidden, kIntermediate, {}}};
  uint32_t seed = 1;
  double all_bytes = 0;
  for (Shape& shape : shapes) {
    const int64_t count = shape.n * shape.k;
    for (int layer = 0; layer < kLayers; ++layer) {
      shape.weights.push_back(Allocate(static_cast<size_t>(count) * 2));
      // A product's rows are then about as long as its operand's.
      Check(quiver::FillRandom(shape.weights.back(), count, HalfType::kBf16,
                               std::sqrt(3.0f / static_cast<float>(shape.k)), ++seed, stream));
    }
    all_bytes += static_cast<double>(count) * 2 * kLayers;
  }
  Activations data;
  Check(quiver::FillRandom(data.x, kMaxRows * kIntermediate, HalfType::kBf16, 2, 1, stream));
  int multiprocessors = 0;
  Check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  const size_t workspace_bytes = quiver::FewRowsWorkspaceBytes(multiprocessors);
  void* workspace = Allocate(workspace_bytes);
  Check(cudaMemsetAsync(workspace, 0, workspace_bytes, stream));
  Check(cudaStreamSynchronize(stream));

  quiver::LayersBench bench(kLayers, stream);
  std::vector<std::unique_ptr<CublasProduct>> products;
  std::vector<std::unique_ptr<Pass>> passes;
  for (const int rows : {1, 8, 32, 64}) {
    for (const Shape& shape : shapes) {
      const double bytes = static_cast<double>(shape.n * shape.k) * 2 * kLayers;
      for (const Way& way : kWays) {
        bench.Add(std::string(shape.name) + ", " + way.name, rows, bytes, [&] {
          for (void* weight : shape.weights) {
            FewRows(way, data.x, shape.k, weight, data.y, shape.n, rows, workspace, stream);
          }
        });
      }
      const CublasProduct::Shape sizes = {rows, shape.n, shape.k, shape.k, shape.n};
      products.push_back(
          std::make_unique<CublasProduct>(sizes, shape.weights, data.x, data.y, stream));
      bench.Add(std::string(shape.name) + ", cublasLt", rows, bytes, [&] {
        for (void* weight : shape.weights) products.back()->Run(weight, data.x, data.y, stream);
      });
    }
    for (const Way& way : kWays) {
      passes.push_back(std::make_unique<Pass>(way, shapes, rows, workspace));
      bench.Add(std::string("36 layers, ") + way.name, rows, all_bytes,
                [&] { passes.back()->Run(stream); });
    }
  }

  char what[64];
  std::snprintf(what, sizeof(what), "BF16 weights of 36 layers %.2f GB", all_bytes * 1e-9);
  bench.Run(arguments, what);
  return 0;
}
