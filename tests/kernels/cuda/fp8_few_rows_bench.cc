// Times the product of few rows by FP8 weights on the shapes of a Qwen3-Embedding-4B layer, beside
// a copy and cuBLASLt's FP8 product, with x quantized before it, measured in the same run. Each
// call has a weight of its own, 36 of them, so that the cache holds none. Random data; medians of
// interleaved rounds of graphs.
//
//   fp8_few_rows_bench [--json FILE] [--splits] [rounds]
//
// --splits: also every way to deal out one shape's weights that fills the device.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/fp8.h"
#include "kernels/cuda/fp8_few_rows.h"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_timing.h"
#include "tests/kernels/cuda/layers_bench.h"
#include "tests/kernels/cuda/scaled_product.h"

namespace {

using quiver::Allocate;
using quiver::Check;
using quiver::HalfType;

constexpr int kLayers = 36;
constexpr int64_t kMaxRows = 256;
constexpr int64_t kMaxWidth = 19456;

struct Shape {
  const char* name;
  int64_t n;
  int64_t k;
  std::vector<void*> codes;  // one a layer
  float* scales;
  double bytes() const { return static_cast<double>(n * k); }
};

void Multiply(const Shape& shape, int layer, const void* x, int64_t rows, void* y,
              const quiver::QuantizedSplit* split, cudaStream_t stream) {
  quiver::Fp8FewRowsTensors tensors;
  tensors.x = x;
  tensors.x_stride = shape.k;
  tensors.codes = shape.codes[static_cast<size_t>(layer)];
  tensors.scales = shape.scales;
  tensors.y = y;
  tensors.y_stride = shape.n;
  tensors.rows = rows;
  tensors.out_features = shape.n;
  tensors.in_features = shape.k;
  Check(split != nullptr ? quiver::Fp8FewRowsSm90(tensors, *split, stream)
                         : quiver::Fp8FewRows(tensors, stream));
}

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 7);
  const bool all_splits = arguments.flags.count("--splits") > 0;
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

  std::vector<Shape> shapes = {{"qkv", 6144, 2560, {}, nullptr},
                               {"o", 2560, 4096, {}, nullptr},
                               {"gate, up", 19456, 2560, {}, nullptr},
                               {"down", 2560, 9728, {}, nullptr}};
  uint64_t seed = 1;
  double layer_bytes = 0;
  for (Shape& shape : shapes) {
    const auto range = static_cast<float>(std::sqrt(3.0 / static_cast<double>(shape.k)));
    shape.scales = static_cast<float*>(Allocate(static_cast<size_t>(shape.n) * 4));
    for (int layer = 0; layer < kLayers; ++layer) {
      shape.codes.push_back(Allocate(static_cast<size_t>(shape.n * shape.k)));
      Check(quiver::RandomFp8(range, ++seed, shape.n, shape.k, shape.codes.back(), shape.scales,
                              stream));
    }
    layer_bytes += shape.bytes();
  }
  void* x = Allocate(kMaxRows * kMaxWidth * 2);
  void* x8 = Allocate(kMaxRows * kMaxWidth);
  auto* x_scales = static_cast<float*>(Allocate(kMaxWidth * 4));
  void* y = Allocate(kMaxRows * kMaxWidth * 2);
  Check(quiver::FillRandom(x, kMaxRows * kMaxWidth, HalfType::kBf16, 2, 1, stream));
  Check(quiver::QuantizeRows(HalfType::kBf16, x, kMaxWidth, kMaxRows, kMaxWidth,
                             {x8, kMaxWidth, x_scales}, stream));
  Check(cudaStreamSynchronize(stream));

  quiver::LayersBench bench(kLayers, stream);
  std::vector<std::unique_ptr<quiver::ScaledProduct>> products;
  for (const int64_t rows : {1, 8, 16, 32, 64, 128, 256}) {
    std::vector<const quiver::ScaledProduct*> layer_products;
    for (const Shape& shape : shapes) {
      const auto add = [&](const std::string& name, const quiver::QuantizedSplit* split) {
        bench.Add(std::string(shape.name) + ", " + name, rows, shape.bytes() * kLayers, [&] {
          for (int layer = 0; layer < kLayers; ++layer) {
            Multiply(shape, layer, x, rows, y, split, stream);
          }
        });
      };
      add("FP8", nullptr);
      const quiver::ScaledShape scaled = {rows,
                                          shape.n,
                                          shape.k,
                                          CUDA_R_8F_E4M3,
                                          CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
                                          CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
                                          false};
      products.push_back(
          std::make_unique<quiver::ScaledProduct>(scaled, shape.codes, x8, y, x_scales, stream));
      layer_products.push_back(products.back().get());
      if (!all_splits || (rows != 1 && rows != 32 && rows != 64)) continue;
      for (const int blocks : {1, 2, 4, 8}) {
        for (int panels = 1; panels <= quiver::kFp8Unit.max_panels; ++panels) {
          const quiver::QuantizedSplit split = {blocks, panels};
          const int64_t grid = (quiver::QuantizedPanels(shape.n) + panels - 1) / panels * blocks;
          if (grid < 75 || grid > 330) continue;
          add(std::to_string(blocks) + " blocks of " + std::to_string(panels), &split);
        }
      }
    }
    bench.Add("36 layers, FP8", rows, layer_bytes * kLayers, [&] {
      for (int layer = 0; layer < kLayers; ++layer) {
        for (const Shape& shape : shapes) Multiply(shape, layer, x, rows, y, nullptr, stream);
      }
    });
    bool all_found = true;
    for (const quiver::ScaledProduct* product : layer_products) {
      all_found = all_found && product->found();
    }
    if (!all_found) continue;
    bench.Add("36 layers, cublasLt FP8", rows, layer_bytes * kLayers, [&] {
      for (size_t layer = 0; layer < kLayers; ++layer) {
        for (size_t s = 0; s < shapes.size(); ++s) {
          Check(quiver::QuantizeRows(HalfType::kBf16, x, shapes[s].k, rows, shapes[s].k,
                                     {x8, shapes[s].k, x_scales}, stream));
          layer_products[s]->Run(shapes[s].codes[layer]);
        }
      }
    });
  }

  char what[64];
  std::snprintf(what, sizeof(what), "FP8 weights of 36 layers %.2f GB",
                layer_bytes * kLayers * 1e-9);
  bench.Run(arguments, what);
  return 0;
}
