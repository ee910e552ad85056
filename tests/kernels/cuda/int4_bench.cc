// Times the product of few rows by int4 weights on the shapes of a Qwen3-Embedding-4B layer, beside
// a copy and cuBLASLt's BF16 product measured in the same run, and the expansion of int4 weights.
// Each call has a weight of its own, 36 of them, so that the cache holds none. Random data; medians
// of interleaved rounds of graphs.
//
//   int4_bench [--json FILE] [--splits] [rounds]
//
// --splits: also ways to deal out weights, one shape alone and all in a layer's order.
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

#include "kernels/cuda/int4_few_rows.h"
#include "kernels/cuda/int4_matrix.h"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_timing.h"
#include "tests/kernels/cuda/cublas_product.h"
#include "tests/kernels/cuda/layers_bench.h"

namespace {

using quiver::Allocate;
using quiver::Check;
using quiver::HalfType;

constexpr int kLayers = 36;
constexpr int kGroup = 128;
constexpr int64_t kMaxRows = 256;
constexpr int64_t kMaxWidth = 19456;

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
  std::vector<quiver::Int4Matrix> weights;  // one a layer
  std::vector<void*> halves;                // the same in BF16
  double bytes() const { return static_cast<double>(quiver::Int4Bytes(n, k, kGroup)); }
};

void Multiply(const quiver::Int4Matrix& weight, const void* x, int64_t rows, void* y,
              const quiver::QuantizedSplit* split, cudaStream_t stream) {
  quiver::Int4FewRowsTensors tensors;
  tensors.x = x;
  tensors.x_stride = weight.k;
  tensors.weight = weight;
  tensors.y = y;
  tensors.y_stride = weight.n;
  tensors.rows = rows;
  Check(split != nullptr ? quiver::Int4FewRowsSm90(tensors, *split, stream)
                         : quiver::Int4FewRows(tensors, stream));
}

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 7);
  const bool all_splits = arguments.flags.count("--splits") > 0;
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

  std::vector<Shape> shapes = {{"qkv", 6144, 2560, {}, {}},
                               {"o", 2560, 4096, {}, {}},
                               {"gate, up", 19456, 2560, {}, {}},
                               {"down", 2560, 9728, {}, {}}};
  uint64_t seed = 1;
  double layer_bytes = 0;
  for (Shape& shape : shapes) {
    const auto range = static_cast<float>(std::sqrt(3.0 / static_cast<double>(shape.k)));
    for (int layer = 0; layer < kLayers; ++layer) {
      shape.weights.push_back({Allocate(static_cast<size_t>(shape.bytes())), shape.n, shape.k,
                               kGroup, HalfType::kBf16});
      Check(quiver::RandomInt4(range, ++seed, shape.weights.back(), stream));
      shape.halves.push_back(Allocate(static_cast<size_t>(shape.n * shape.k) * 2));
      Check(quiver::ExpandInt4(shape.weights.back(), 0, shape.n, shape.halves.back(), stream));
    }
    layer_bytes += shape.bytes();
  }
  void* x = Allocate(kMaxRows * kMaxWidth * 2);
  void* y = Allocate(kMaxRows * kMaxWidth * 2);
  Check(quiver::FillRandom(x, kMaxRows * kMaxWidth, HalfType::kBf16, 2, 1, stream));
  Check(cudaStreamSynchronize(stream));

  quiver::LayersBench bench(kLayers, stream);
  std::vector<std::unique_ptr<quiver::CublasProduct>> products;
  for (const int64_t rows : {1, 8, 16, 32, 64, 128, 256}) {
    std::vector<quiver::CublasProduct*> layer;
    for (const Shape& shape : shapes) {
      bench.Add(std::string(shape.name) + ", int4", rows, shape.bytes() * kLayers, [&] {
        for (const auto& weight : shape.weights) Multiply(weight, x, rows, y, nullptr, stream);
      });
      const quiver::CublasProduct::Shape dense = {rows, shape.n, shape.k, shape.k, shape.n};
      products.push_back(
          std::make_unique<quiver::CublasProduct>(dense, shape.halves, x, y, stream));
      layer.push_back(products.back().get());
      bench.Add(std::string(shape.name) + ", cublasLt BF16", rows,
                static_cast<double>(shape.n * shape.k) * 2 * kLayers, [&] {
                  for (void* weight : shape.halves) products.back()->Run(weight, x, y, stream);
                });
      if (rows != 32 || !all_splits) continue;
      for (int blocks = 1; blocks <= 8; ++blocks) {
        for (int panels = 1; panels <= quiver::kInt4Unit.max_panels; ++panels) {
          const quiver::QuantizedSplit split = {blocks, panels};
          const int64_t grid = (quiver::Int4Panels(shape.n) + panels - 1) / panels * blocks;
          if (grid < 75 || grid > 270) continue;
          bench.Add(std::string(shape.name) + ", " + std::to_string(blocks) + " blocks of " +
                        std::to_string(panels),
                    rows, shape.bytes() * kLayers, [&] {
                      for (const auto& weight : shape.weights) {
                        Multiply(weight, x, rows, y, &split, stream);
                      }
                    });
        }
      }
    }
    bench.Add("36 layers, int4", rows, layer_bytes * kLayers, [&] {
      for (int i = 0; i < kLayers; ++i) {
        for (const Shape& shape : shapes) {
          Multiply(shape.weights[static_cast<size_t>(i)], x, rows, y, nullptr, stream);
        }
      }
    });
    if (all_splits && (rows == 1 || rows == 32 || rows == 64)) {
      for (const quiver::QuantizedSplit qkv : {quiver::QuantizedSplit{1, 1}, {2, 2}, {4, 2}}) {
        for (const quiver::QuantizedSplit o :
             {quiver::QuantizedSplit{2, 1}, {4, 1}, {4, 2}, {8, 3}}) {
          for (const quiver::QuantizedSplit gate_up :
               {quiver::QuantizedSplit{1, 3}, {2, 3}, {2, 5}, {4, 6}}) {
            for (const quiver::QuantizedSplit down :
                 {quiver::QuantizedSplit{2, 1}, {4, 1}, {4, 2}, {8, 3}}) {
              const quiver::QuantizedSplit splits[] = {qkv, o, gate_up, down};
              std::string name = "layers";
              for (const quiver::QuantizedSplit& split : splits) {
                name +=
                    " " + std::to_string(split.cluster_blocks) + "x" + std::to_string(split.panels);
              }
              bench.Add(name, rows, layer_bytes * kLayers, [&] {
                for (int i = 0; i < kLayers; ++i) {
                  for (size_t s = 0; s < shapes.size(); ++s) {
                    Multiply(shapes[s].weights[static_cast<size_t>(i)], x, rows, y, &splits[s],
                             stream);
                  }
                }
              });
            }
          }
        }
      }
    }
    bench.Add("36 layers, cublasLt BF16", rows, 0, [&] {
      for (int i = 0; i < kLayers; ++i) {
        for (size_t s = 0; s < shapes.size(); ++s) {
          layer[s]->Run(shapes[s].halves[static_cast<size_t>(i)], x, y, stream);
        }
      }
    });
  }
  double all_bytes = 0;
  for (const Shape& shape : shapes) {
    all_bytes += shape.bytes() + static_cast<double>(shape.n * shape.k) * 2;
  }
  bench.Add("expansion to BF16", 0, all_bytes * kLayers, [&] {
    for (int i = 0; i < kLayers; ++i) {
      for (const Shape& shape : shapes) {
        const auto layer = static_cast<size_t>(i);
        Check(quiver::ExpandInt4(shape.weights[layer], 0, shape.n, shape.halves[layer], stream));
      }
    }
  });

  char what[64];
  std::snprintf(what, sizeof(what), "int4 weights of 36 layers %.2f GB",
                layer_bytes * kLayers * 1e-9);
  bench.Run(arguments, what);
  return 0;
}
