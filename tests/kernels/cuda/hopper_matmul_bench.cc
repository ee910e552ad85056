// Times a layer's products with what follows them, on the shapes of Qwen3-Embedding-4B and 0.6B: by
// cuBLASLt and a kernel of their own, and by Hopper's product with each of its tiles, which does
// both. Each call has a weight of its own, so that the cache holds none. Random data; medians of
// interleaved rounds of graphs. Then whole layers' products, each way for a while in turn, so that
// the clock is what the way's own power lets it be.
//
//   hopper_matmul_bench [--json FILE] [rounds]
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
#include "kernels/cuda/hopper_matmul.h"
#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_arguments.h"
#include "tests/kernels/cuda/bench_timing.h"
#include "tests/kernels/cuda/cublas_product.h"

namespace {

using quiver::Allocate;
using quiver::Check;
using quiver::CublasProduct;
using quiver::HalfType;
using quiver::HopperMatmulTile;
using quiver::MatmulEpilogue;

constexpr int kHeadDim = quiver::kHopperMatmulHeadDim;
constexpr int kKvHeads = 8;
constexpr float kEps = 1e-6f;
constexpr int64_t kRows[] = {256, 512, 1024, 2048, 4096, 8192};
constexpr int64_t kMaxRows = 8192;
constexpr int64_t kMaxPositions = 8192;

struct Model {
  const char* name;
  int64_t hidden;
  int64_t inner;
  int heads;
};
constexpr Model kModels[] = {{"4B", 2560, 9728, 32}, {"0.6B", 1024, 3072, 16}};
constexpr int kLayers = 36;

// A product of a layer, and what is made of it.
struct Operation {
  const char* name;
  int64_t n;
  int64_t k;
  int64_t x_stride;
  int64_t y_stride;
  MatmulEpilogue epilogue;
  std::vector<void*> weights;  // one a layer
};

struct Data {
  void* x;
  void* y;
  float* norm;
  float* table;
  int32_t* positions;
};

std::vector<Operation> OperationsOf(const Model& model, cudaStream_t stream) {
  const int64_t query = int64_t{model.heads} * kHeadDim;
  const int64_t qkv = query + 2 * kKvHeads * kHeadDim;
  // Attention leaves its output in place of the queries, and an activation its output in place of
  // the gates.
  std::vector<Operation> operations = {
      {"qkv, rope", qkv, model.hidden, model.hidden, qkv, MatmulEpilogue::kQkNormRope, {}},
      {"o", model.hidden, query, qkv, model.hidden, MatmulEpilogue::kNone, {}},
      {"gate up, swiglu",
       2 * model.inner,
       model.hidden,
       model.hidden,
       2 * model.inner,
       MatmulEpilogue::kSwiGlu,
       {}},
      {"down",
       model.hidden,
       model.inner,
       2 * model.inner,
       model.hidden,
       MatmulEpilogue::kNone,
       {}}};
  uint32_t seed = 1;
  for (Operation& operation : operations) {
    for (int layer = 0; layer < kLayers; ++layer) {
      operation.weights.push_back(Allocate(static_cast<size_t>(operation.n * operation.k) * 2));
      // A product's rows are then about as long as its operand's.
      Check(quiver::FillRandom(operation.weights.back(), operation.n * operation.k, HalfType::kBf16,
                               std::sqrt(3.0f / static_cast<float>(operation.k)), ++seed, stream));
    }
  }
  return operations;
}

void Separately(const Operation& operation, const Model& model, const CublasProduct& product,
                int64_t rows, size_t layer, const Data& data, cudaStream_t stream) {
  product.Run(operation.weights[layer], data.x, data.y, stream);
  if (operation.epilogue == MatmulEpilogue::kSwiGlu) {
    Check(quiver::SwiGlu(data.y, operation.y_stride, rows, model.inner, data.y, operation.y_stride,
                         HalfType::kBf16, stream));
  } else if (operation.epilogue == MatmulEpilogue::kQkNormRope) {
    Check(quiver::QkNormRope({rows, model.heads, kKvHeads, kHeadDim, HalfType::kBf16}, data.y,
                             operation.y_stride, data.norm, data.norm, kEps, data.positions,
                             data.table, stream));
  }
}

void Fused(const Operation& operation, const Model& model, const HopperMatmulTile& tile,
           int64_t rows, size_t layer, const Data& data, cudaStream_t stream) {
  quiver::HopperMatmulTensors tensors;
  tensors.x = data.x;
  tensors.x_stride = operation.x_stride;
  tensors.weight = operation.weights[layer];
  tensors.y = data.y;
  tensors.y_stride = operation.y_stride;
  tensors.rows = rows;
  tensors.out_features = operation.n;
  tensors.in_features = operation.k;
  tensors.epilogue = operation.epilogue;
  tensors.rope = {model.heads, kKvHeads, data.norm, data.norm, kEps, data.positions, data.table};
  Check(quiver::HopperMatmul(tensors, tile, stream));
}

struct Way {
  std::string name;
  std::function<void(size_t layer)> run;  // into the stream
  std::unique_ptr<quiver::Graph> graph;
  std::vector<double> us;  // a layer
};

// Layers in a graph: enough for the cache to hold none, few enough to be quick.
size_t LayersFor(int64_t rows) { return rows <= 1024 ? kLayers : rows <= 4096 ? 12 : 6; }

// Runs ways in turn, and prints them; returns the best.
const Way& Measure(const std::string& title, double flop, int64_t rows, int rounds,
                   std::vector<Way>* ways, cudaStream_t stream, std::FILE* json) {
  const size_t layers = LayersFor(rows);
  for (Way& way : *ways) {
    way.graph = std::make_unique<quiver::Graph>(stream, [&] {
      for (size_t layer = 0; layer < layers; ++layer) way.run(layer);
    });
  }
  for (int round = -1; round < rounds; ++round) {
    for (Way& way : *ways) {
      const double ms = quiver::Time(1, stream, [&] { way.graph->Run(); });
      if (round >= 0) way.us.push_back(ms * 1e3 / static_cast<double>(layers));
    }
  }
  const Way* best = &ways->front();
  std::printf("%-22s %5lld", title.c_str(), static_cast<long long>(rows));
  for (const Way& way : *ways) {
    const double us = quiver::Median(way.us);
    std::printf("  %s %.1f", way.name.c_str(), us);
    if (us < quiver::Median(best->us)) best = &way;
    if (json != nullptr) {
      std::fprintf(json, "{\"work\": \"%s\", \"rows\": %lld, \"way\": \"%s\", \"us\": %.2f},\n",
                   title.c_str(), static_cast<long long>(rows), way.name.c_str(), us);
    }
  }
  const double separate = quiver::Median(ways->front().us);
  const double fused = quiver::Median(best->us);
  std::printf("  => %s %.3f (%.0f, %.0f TFLOP/s)\n", best->name.c_str(), separate / fused,
              flop / separate * 1e-6, flop / fused * 1e-6);
  std::fflush(stdout);
  for (Way& way : *ways) way.graph.reset();
  return *best;
}

// Microseconds a layer of each of two ways, for a while each in turn.
void Sustain(const char* title, int64_t rows, const std::function<void(size_t)> (&ways)[2],
             cudaStream_t stream) {
  constexpr double kBlockMs = 400;
  std::unique_ptr<quiver::Graph> graphs[2];
  const size_t layers = LayersFor(rows);
  for (int i = 0; i < 2; ++i) {
    graphs[i] = std::make_unique<quiver::Graph>(stream, [&] {
      for (size_t layer = 0; layer < layers; ++layer) ways[i](layer);
    });
  }
  std::vector<double> us[2];
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 2; ++i) {
      const double once = quiver::Time(1, stream, [&] { graphs[i]->Run(); });
      const int calls = std::max(1, static_cast<int>(kBlockMs / once / 2));
      // The first half of the block lets the clock settle.
      quiver::Time(calls, stream, [&] { graphs[i]->Run(); });
      us[i].push_back(quiver::Time(calls, stream, [&] { graphs[i]->Run(); }) * 1e3 /
                      static_cast<double>(layers));
    }
  }
  std::printf(
      "%s, %lld rows, sustained, us a layer: separate %.1f, best of both %.1f, ratio %.3f\n", title,
      static_cast<long long>(rows), quiver::Median(us[0]), quiver::Median(us[1]),
      quiver::Median(us[0]) / quiver::Median(us[1]));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 7);
  std::FILE* json =
      arguments.json_path.empty() ? nullptr : std::fopen(arguments.json_path.c_str(), "w");
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, BF16, microseconds a layer, median of %d rounds\n", properties.name,
              arguments.rounds);
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

  const Model& widest = kModels[0];
  const int64_t x_elements = kMaxRows * 2 * widest.inner;
  Data data;
  data.x = Allocate(static_cast<size_t>(x_elements) * 2);
  data.y = Allocate(static_cast<size_t>(x_elements) * 2);
  data.norm = static_cast<float*>(Allocate(kHeadDim * 4));
  data.table = static_cast<float*>(Allocate(kMaxPositions * kHeadDim * 4));
  data.positions = static_cast<int32_t*>(Allocate(kMaxRows * 4));
  Check(quiver::FillRandom(data.x, x_elements, HalfType::kBf16, 1.7f, 1, stream));
  const std::vector<float> ones(kHeadDim, 1.0f);
  Check(cudaMemcpy(data.norm, ones.data(), kHeadDim * 4, cudaMemcpyHostToDevice));
  Check(quiver::MakeRopeTable(data.table, kMaxPositions, kHeadDim, 1e6, stream));
  std::vector<int32_t> positions;
  for (int i = 0; i < kMaxRows; ++i) positions.push_back(i % 512);
  Check(cudaMemcpy(data.positions, positions.data(), kMaxRows * 4, cudaMemcpyHostToDevice));

  for (const Model& model : kModels) {
    const std::vector<Operation> operations = OperationsOf(model, stream);
    Check(cudaStreamSynchronize(stream));
    for (const int64_t rows : kRows) {
      std::vector<std::unique_ptr<CublasProduct>> products;
      std::function<void(size_t)> fastest[4];
      for (size_t i = 0; i < operations.size(); ++i) {
        const Operation& operation = operations[i];
        const CublasProduct::Shape shape = {rows, operation.n, operation.k, operation.x_stride,
                                            operation.y_stride};
        const std::vector<void*> some(
            operation.weights.begin(),
            operation.weights.begin() + static_cast<int64_t>(LayersFor(rows)) / 2);
        products.push_back(std::make_unique<CublasProduct>(shape, some, data.x, data.y, stream));
        std::vector<Way> ways;
        const CublasProduct& product = *products.back();
        ways.push_back({"cublasLt",
                        [&, rows](size_t layer) {
                          Separately(operation, model, product, rows, layer, data, stream);
                        },
                        nullptr,
                        {}});
        for (const HopperMatmulTile& tile : quiver::HopperMatmulTiles(operation.epilogue)) {
          ways.push_back({std::to_string(tile.columns) + "x" + std::to_string(tile.cluster_blocks),
                          [&, tile, rows](size_t layer) {
                            Fused(operation, model, tile, rows, layer, data, stream);
                          },
                          nullptr,
                          {}});
        }
        const double flop =
            2.0 * static_cast<double>(rows) * static_cast<double>(operation.n * operation.k);
        fastest[i] = Measure(std::string(model.name) + " " + operation.name, flop, rows,
                             arguments.rounds, &ways, stream, json)
                         .run;
      }
      const std::function<void(size_t)> ways[2] = {
          [&](size_t layer) {
            for (size_t i = 0; i < operations.size(); ++i) {
              Separately(operations[i], model, *products[i], rows, layer, data, stream);
            }
          },
          [&](size_t layer) {
            for (const auto& operation : fastest) operation(layer);
          }};
      if (rows >= 1024) Sustain(model.name, rows, ways, stream);
    }
    for (const Operation& operation : operations) {
      for (void* weight : operation.weights) Check(cudaFree(weight));
    }
  }
  if (json != nullptr) std::fclose(json);
  return 0;
}
