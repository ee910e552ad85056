// Times cuBLASLt's FP8 products on the shapes of a Qwen3-Embedding-4B layer, by the ways it can
// scale operands, beside its BF16 product. Random data; medians of interleaved rounds.
//
//   fp8_bench [--json FILE] [rounds]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_arguments.h"
#include "tests/kernels/cuda/bench_timing.h"
#include "tests/kernels/cuda/scaled_product.h"

namespace {

using quiver::Allocate;
using quiver::Check;

struct Way {
  const char* name;
  cudaDataType_t type;
  cublasLtMatmulMatrixScale_t weight_scale;
  cublasLtMatmulMatrixScale_t x_scale;
  bool fast_sums;
};

const Way kWays[] = {
    {"BF16", CUDA_R_16BF, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, false},
    {"per tensor", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, false},
    {"per tensor, fast sums", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, true},
    {"per row", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F, false},
    {"per row, fast sums", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F, true},
    {"128 of both", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F, false},
    {"128 of x, blocks of W", CUDA_R_8F_E4M3, CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F,
     CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F, false},
};

struct Measured {
  const char* shape;
  const char* way;
  int64_t rows;
  double flop;
  std::unique_ptr<quiver::ScaledProduct> product;
  void* weight;
  std::vector<double> ms;
};

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 5);
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  constexpr int64_t kMaxRows = 8192;
  constexpr int64_t kWidth = 19456;
  // Bytes that are no NaN of E4M3's, and any BF16 numbers of moderate size.
  void* x8 = Allocate(kMaxRows * 9728);
  void* w8 = Allocate(kWidth * 9728);
  std::vector<uint8_t> bytes(kWidth * 9728);
  std::mt19937 rng(1);
  for (uint8_t& byte : bytes) {
    const uint32_t bits = rng();
    byte = static_cast<uint8_t>((bits & 0x87) | (0x20 + ((bits >> 8 & 3) << 3)));
  }
  Check(cudaMemcpy(w8, bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
  Check(cudaMemcpy(x8, bytes.data() + 4096, kMaxRows * 9728, cudaMemcpyHostToDevice));
  void* x16 = Allocate(kMaxRows * 9728 * 2);
  void* w16 = Allocate(kWidth * 2560 * 2);
  Check(quiver::FillRandom(x16, kMaxRows * 9728, quiver::HalfType::kBf16, 2, 1, stream));
  Check(quiver::FillRandom(w16, kWidth * 2560, quiver::HalfType::kBf16, 0.04f, 2, stream));
  void* y = Allocate(kMaxRows * kWidth * 2);
  const std::vector<float> ones(kWidth * 80, 1.0f);
  auto* scales = static_cast<float*>(Allocate(ones.size() * 4));
  Check(cudaMemcpy(scales, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
  Check(cudaStreamSynchronize(stream));

  struct Shape {
    const char* name;
    int64_t n;
    int64_t k;
  };
  const Shape shapes[] = {
      {"qkv", 6144, 2560}, {"o", 2560, 4096}, {"gate, up", 19456, 2560}, {"down", 2560, 9728}};
  std::vector<Measured> all;
  for (const int64_t rows : {512, 4096, 8192}) {
    for (const Shape& shape : shapes) {
      for (const Way& way : kWays) {
        const bool is_half = way.type == CUDA_R_16BF;
        const quiver::ScaledShape product = {
            rows, shape.n, shape.k, way.type, way.weight_scale, way.x_scale, way.fast_sums};
        void* weight = is_half ? w16 : w8;
        all.push_back(
            {shape.name,
             way.name,
             rows,
             2.0 * static_cast<double>(rows * shape.n * shape.k),
             std::make_unique<quiver::ScaledProduct>(product, std::vector<void*>{weight},
                                                     is_half ? x16 : x8, y, scales, stream),
             weight,
             {}});
      }
    }
  }
  for (int round = 0; round < arguments.rounds; ++round) {
    for (Measured& measured : all) {
      if (!measured.product->found()) continue;
      measured.ms.push_back(
          quiver::Time(4, stream, [&] { measured.product->Run(measured.weight); }));
    }
  }
  std::FILE* json =
      arguments.json_path.empty() ? nullptr : std::fopen(arguments.json_path.c_str(), "w");
  if (json != nullptr) std::fprintf(json, "[");
  const char* separator = "";
  std::printf("%-10s %-24s %6s %9s %9s\n", "shape", "scales", "rows", "us", "TFLOP/s");
  for (const Measured& measured : all) {
    if (measured.ms.empty()) {
      std::printf("%-10s %-24s %6d    not supported\n", measured.shape, measured.way,
                  static_cast<int>(measured.rows));
      continue;
    }
    const double ms = quiver::Median(measured.ms);
    std::printf("%-10s %-24s %6d %9.1f %9.0f\n", measured.shape, measured.way,
                static_cast<int>(measured.rows), ms * 1e3, measured.flop / ms * 1e-9);
    if (json == nullptr) continue;
    std::fprintf(json, "%s\n {\"shape\": \"%s\", \"scales\": \"%s\", \"rows\": %d, \"us\": %.2f}",
                 separator, measured.shape, measured.way, static_cast<int>(measured.rows),
                 ms * 1e3);
    separator = ",";
  }
  if (json != nullptr) {
    std::fprintf(json, "\n]\n");
    std::fclose(json);
  }
  return 0;
}
