// Times attention on the device beside a ceiling measured in the same run: a BF16 matrix product of
// 8192 cubed by cuBLASLt. Random data; medians of interleaved rounds.
//
//   attention_bench [rounds [hopper | portable]]
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_timing.h"

namespace {

using quiver::Allocate;
using quiver::AttentionKernel;
using quiver::AttentionPath;
using quiver::AttentionType;
using quiver::Check;
using quiver::Median;
using quiver::Time;

void Check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "cuBLASLt: status %d\n", static_cast<int>(status));
  std::exit(1);
}

// c = a b^T with BF16 operands of 8192 x 8192.
class Ceiling {
 public:
  static constexpr int kSize = 8192;
  static constexpr double kFlop = 2.0 * kSize * kSize * kSize;

  Ceiling() {
    const size_t count = static_cast<size_t>(kSize) * kSize;
    for (void** data : {&a_, &b_, &c_}) *data = Allocate(count * 2);
    Check(quiver::FillRandom(a_, count, AttentionType::kBf16, 1, 1, nullptr));
    Check(quiver::FillRandom(b_, count, AttentionType::kBf16, 1, 2, nullptr));
    workspace_ = Allocate(kWorkspaceBytes);
    Check(cublasLtCreate(&handle_));
    Check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof(transposed)));
    Check(cublasLtMatrixLayoutCreate(&layout_, CUDA_R_16BF, kSize, kSize, kSize));
    cublasLtMatmulPreference_t preference;
    Check(cublasLtMatmulPreferenceCreate(&preference));
    Check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &kWorkspaceBytes, sizeof(kWorkspaceBytes)));
    int found = 0;
    Check(cublasLtMatmulAlgoGetHeuristic(handle_, operation_, layout_, layout_, layout_, layout_,
                                         preference, 1, &result_, &found));
    Check(cublasLtMatmulPreferenceDestroy(preference));
    if (found == 0) Check(CUBLAS_STATUS_NOT_SUPPORTED);
  }

  void Run() {
    const float one = 1;
    const float zero = 0;
    Check(cublasLtMatmul(handle_, operation_, &one, a_, layout_, b_, layout_, &zero, c_, layout_,
                         c_, layout_, &result_.algo, workspace_, kWorkspaceBytes, nullptr));
  }

 private:
  static constexpr size_t kWorkspaceBytes = 64 << 20;
  void* a_;
  void* b_;
  void* c_;
  void* workspace_;
  cublasLtHandle_t handle_;
  cublasLtMatmulDesc_t operation_;
  cublasLtMatrixLayout_t layout_;
  cublasLtMatmulHeuristicResult_t result_;
};

struct Row {
  std::string name;
  std::vector<int> lengths;
  int heads;
  int kv_heads;
  int head_dim;
  bool causal;
};

std::vector<int> MixedLengths(int count, double median, int cap) {
  std::mt19937 random(7);
  std::lognormal_distribution<double> distribution(std::log(median), 0.8);
  std::vector<int> lengths;
  for (int i = 0; i < count; ++i) {
    lengths.push_back(std::clamp(static_cast<int>(distribution(random)), 1, cap));
  }
  return lengths;
}

std::vector<Row> Rows() {
  return {
      {"1 x 32768", {32768}, 32, 8, 128, true},
      {"2 x 16384", std::vector<int>(2, 16384), 32, 8, 128, true},
      {"4 x 8192", std::vector<int>(4, 8192), 32, 8, 128, true},
      {"8 x 4096", std::vector<int>(8, 4096), 32, 8, 128, true},
      {"16 x 2048", std::vector<int>(16, 2048), 32, 8, 128, true},
      {"32 x 1024", std::vector<int>(32, 1024), 32, 8, 128, true},
      {"64 x 512", std::vector<int>(64, 512), 32, 8, 128, true},
      {"256 x 128", std::vector<int>(256, 128), 32, 8, 128, true},
      {"150 mixed", MixedLengths(150, 180, 2048), 32, 8, 128, true},
      {"32 x 32", std::vector<int>(32, 32), 32, 8, 128, true},
      {"1 x 512", {512}, 32, 8, 128, true},
      {"1 x 32", {32}, 32, 8, 128, true},
      {"0.6B 1 x 32768", {32768}, 16, 8, 128, true},
      {"0.6B 64 x 512", std::vector<int>(64, 512), 16, 8, 128, true},
      {"full 4 x 8192", std::vector<int>(4, 8192), 32, 8, 128, false},
      {"BERT 64 x 512", std::vector<int>(64, 512), 12, 12, 64, false},
      {"MiniLM 128 x 256", std::vector<int>(128, 256), 12, 12, 32, false},
  };
}

struct Setup {
  Row row;
  quiver::AttentionShape shape;
  quiver::AttentionTensors tensors;
  quiver::AttentionPlan plan;
  double flop = 0;
  std::vector<double> ms;
};

Setup Prepare(const Row& row, AttentionPath path, void* qkv, void* out, void* counters) {
  Setup setup;
  setup.row = row;
  setup.shape = {row.heads, row.kv_heads, row.head_dim, row.causal, AttentionType::kBf16};
  std::vector<quiver::AttentionRows> rows;
  int32_t begin = 0;
  for (const int length : row.lengths) {
    rows.push_back({begin, 0, length, begin, length});
    begin += length;
  }
  setup.plan = quiver::PlanAttention(setup.shape, path, rows, {});
  for (const auto& launch : setup.plan.launches) setup.flop += launch.flop;
  const size_t bytes = setup.plan.tiles.size() * sizeof(quiver::AttentionTile);
  void* tiles = Allocate(bytes);
  Check(cudaMemcpy(tiles, setup.plan.tiles.data(), bytes, cudaMemcpyHostToDevice));

  uint16_t* base = static_cast<uint16_t*>(qkv);
  quiver::AttentionTensors& tensors = setup.tensors;
  tensors.q = base;
  tensors.k = base + row.heads * row.head_dim;
  tensors.v = base + (row.heads + row.kv_heads) * row.head_dim;
  tensors.out = out;
  tensors.q_stride = (row.heads + 2 * row.kv_heads) * row.head_dim;
  tensors.k_stride = tensors.v_stride = tensors.q_stride;
  tensors.out_stride = row.heads * row.head_dim;
  tensors.q_rows = tensors.kv_rows = begin;
  tensors.tiles = static_cast<quiver::AttentionTile*>(tiles);
  tensors.counters = static_cast<int32_t*>(counters);
  return setup;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0));
  AttentionPath best;
  Check(quiver::BestAttentionPath(&best));
  std::printf("%s, %d multiprocessors; BF16, random data, median of %d rounds\n", properties.name,
              properties.multiProcessorCount, rounds);

  constexpr int64_t kElements = int64_t{40000} * 6144;
  void* qkv = Allocate(kElements * 2);
  void* out = Allocate(kElements * 2);
  Check(quiver::FillRandom(qkv, kElements, AttentionType::kBf16, 2, 3, nullptr));
  void* counters = Allocate(8);
  Check(cudaMemset(counters, 0, 8));

  Ceiling ceiling;
  std::vector<double> ceiling_ms;
  std::vector<AttentionPath> paths = {AttentionPath::kPortable};
  if (best == AttentionPath::kHopper) paths.insert(paths.begin(), AttentionPath::kHopper);
  if (argc > 2) {
    paths = {std::string(argv[2]) == "portable" ? AttentionPath::kPortable
                                                : AttentionPath::kHopper};
  }
  for (const AttentionPath path : paths) {
    std::vector<Setup> setups;
    for (const Row& row : Rows()) setups.push_back(Prepare(row, path, qkv, out, counters));
    for (int round = -1; round < rounds; ++round) {
      for (Setup& setup : setups) {
        const int calls = std::clamp(static_cast<int>(4e12 / setup.flop), 1, 50);
        const double ms = Time(calls, nullptr, [&] {
          for (const auto& launch : setup.plan.launches) {
            Check(quiver::Attention(setup.shape, launch, setup.tensors,
                                    1 / std::sqrt(static_cast<float>(setup.row.head_dim)),
                                    nullptr));
          }
        });
        if (round >= 0) setup.ms.push_back(ms);
      }
      const double ms = Time(4, nullptr, [&] { ceiling.Run(); });
      if (round >= 0) ceiling_ms.push_back(ms);
    }
    const double limit = Ceiling::kFlop / Median(ceiling_ms) * 1e-9;
    std::printf("\n%s path; matrix product 8192^3: %.0f TFLOP/s\n",
                path == AttentionPath::kHopper ? "Hopper" : "portable", limit);
    std::printf("%-18s %10s %9s %7s\n", "row", "us", "TFLOP/s", "ratio");
    for (const Setup& setup : setups) {
      const double ms = Median(setup.ms);
      const double rate = setup.flop / ms * 1e-9;
      std::printf("%-18s %10.1f %9.0f %7.2f\n", setup.row.name.c_str(), ms * 1e3, rate,
                  rate / limit);
    }
  }
  return 0;
}
