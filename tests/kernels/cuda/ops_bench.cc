// Times the device's memory-bound operators beside a copy measured in the same run. Random data;
// medians of interleaved rounds; bytes are those an operator must read and write. At few rows what
// counts is microseconds: there the calls are one graph, whose data the cache may hold.
//
//   ops_bench [--json FILE] [rounds]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/pool_encode.h"
#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/attention_reference.h"
#include "tests/kernels/cuda/bench_arguments.h"
#include "tests/kernels/cuda/bench_timing.h"

namespace {

using quiver::Allocate;
using quiver::Check;
using quiver::HalfType;

constexpr int64_t kMaxRows = 32768;
constexpr int64_t kHidden = 2560;
constexpr int64_t kIntermediate = 9728;
constexpr int kHeads = 32;
constexpr int kKvHeads = 8;
constexpr int kHeadDim = 128;
constexpr int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim;
constexpr int64_t kBertHidden = 384;
constexpr int kGraphCalls = 50;

struct Buffers {
  float* residual = static_cast<float*>(Allocate(kMaxRows * kHidden * 4));
  void* half = Allocate(kMaxRows * 2 * kIntermediate * 2);
  void* out = Allocate(kMaxRows * kIntermediate * 2);
  float* weight = static_cast<float*>(Allocate(kIntermediate * 4));
  float* table = static_cast<float*>(Allocate(kMaxRows * kHeadDim * 4));
  int32_t* ids = static_cast<int32_t*>(Allocate(kMaxRows * 4));
  int32_t* positions = static_cast<int32_t*>(Allocate(kMaxRows * 4));
  quiver::PoolResult* results =
      static_cast<quiver::PoolResult*>(Allocate(1024 * sizeof(quiver::PoolResult)));
};

struct Work {
  std::string name;
  int64_t rows;
  double bytes;
  std::function<void(cudaStream_t)> run;
};

quiver::NormTensors NormOf(const Buffers& b, int64_t rows, int64_t dim) {
  quiver::NormTensors tensors;
  tensors.residual = tensors.residual_out = b.residual;
  tensors.residual_stride = tensors.residual_out_stride = dim;
  tensors.delta = b.half;
  tensors.delta_stride = dim;
  tensors.out = b.out;
  tensors.out_stride = dim;
  tensors.rows = rows;
  tensors.dim = dim;
  return tensors;
}

std::vector<Work> WorksOf(const Buffers& b, int64_t rows) {
  constexpr HalfType kType = HalfType::kBf16;
  const auto n = static_cast<double>(rows);
  std::vector<Work> works;
  works.push_back({"embed 2560", rows, n * kHidden * 6, [=](cudaStream_t stream) {
                     Check(quiver::Embed({quiver::cpu::StoredType::kBF16, b.half}, {}, {}, b.ids,
                                         nullptr, rows, kHidden, b.residual, kHidden, stream));
                   }});
  for (const int64_t dim : {kHidden, int64_t{1024}}) {
    works.push_back({"add + rms norm " + std::to_string(dim), rows,
                     n * static_cast<double>(dim) * 12, [=](cudaStream_t stream) {
                       Check(quiver::AddRmsNorm(NormOf(b, rows, dim), b.weight, 1e-6f, stream));
                     }});
  }
  works.push_back({"add + layer norm 384", rows, n * kBertHidden * 12, [=](cudaStream_t stream) {
                     quiver::NormTensors tensors = NormOf(b, rows, kBertHidden);
                     tensors.delta_bias = b.weight;
                     Check(quiver::AddLayerNorm(tensors, b.weight, b.weight, 1e-12f, stream));
                   }});
  works.push_back({"qk norm + rope 32+8 x 128", rows, n * (kHeads + kKvHeads) * kHeadDim * 4,
                   [=](cudaStream_t stream) {
                     Check(quiver::QkNormRope({rows, kHeads, kKvHeads, kHeadDim, kType}, b.half,
                                              kQkv, b.weight, b.weight, 1e-6f, b.positions, b.table,
                                              stream));
                   }});
  works.push_back({"swiglu 9728", rows, n * kIntermediate * 6, [=](cudaStream_t stream) {
                     Check(quiver::SwiGlu(b.half, 2 * kIntermediate, rows, kIntermediate, b.out,
                                          kIntermediate, kType, stream));
                   }});
  works.push_back({"bias + gelu 1536", rows, n * 1536 * 4, [=](cudaStream_t stream) {
                     Check(quiver::BiasActivate(quiver::cpu::Activation::kGelu, b.weight, rows,
                                                1536, b.out, 1536, kType, stream));
                   }});
  return works;
}

// `sequences` of `length` rows each.
Work PoolOf(const Buffers& b, quiver::cpu::PoolKind kind, int sequences, int length, int64_t dim,
            const std::string& name) {
  std::vector<quiver::PoolItem> items;
  for (int i = 0; i < sequences; ++i) {
    items.push_back({i * length, length, static_cast<int32_t>(dim), quiver::cpu::Encoding::kFloat32,
                     true, i * dim * 4});
  }
  const size_t bytes = items.size() * sizeof(items[0]);
  auto* device_items = static_cast<quiver::PoolItem*>(Allocate(bytes));
  Check(cudaMemcpy(device_items, items.data(), bytes, cudaMemcpyHostToDevice));
  quiver::PoolTensors tensors;
  tensors.hidden = b.residual;
  tensors.hidden_stride = dim;
  tensors.dim = dim;
  tensors.items = device_items;
  tensors.num_items = sequences;
  tensors.out = b.out;
  tensors.results = b.results;
  const bool is_mean = kind == quiver::cpu::PoolKind::kMean;
  if (!is_mean) tensors.norm_weight = b.weight;
  const double rows_read = is_mean ? static_cast<double>(sequences) * length : sequences;
  return {name, sequences * int64_t{length}, (rows_read + sequences) * static_cast<double>(dim) * 4,
          [=](cudaStream_t stream) { Check(quiver::PoolEncode(kind, tensors, stream)); }};
}

struct Measured {
  Work work;
  std::unique_ptr<quiver::Graph> graph;  // for few rows
  std::vector<double> us;
};

}  // namespace

int main(int argc, char** argv) {
  const quiver::BenchArguments arguments(argc, argv, 7);
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));

  Buffers buffers;
  Check(quiver::FillRandom(buffers.half, kMaxRows * 2 * kIntermediate, HalfType::kBf16, 2, 1,
                           stream));
  Check(quiver::FillRandom(buffers.out, kMaxRows * kIntermediate, HalfType::kBf16, 2, 2, stream));
  Check(cudaMemsetAsync(buffers.residual, 0, kMaxRows * kHidden * 4, stream));
  const std::vector<float> ones(kIntermediate, 1.0f);
  Check(cudaMemcpy(buffers.weight, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
  std::vector<int32_t> ids(kMaxRows);
  std::iota(ids.begin(), ids.end(), 0);
  Check(cudaMemcpy(buffers.positions, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % kMaxRows);
  Check(cudaMemcpy(buffers.ids, ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
  Check(quiver::MakeRopeTable(buffers.table, kMaxRows, kHeadDim, 1e6, stream));

  std::vector<Measured> all;
  for (const int64_t rows : {int64_t{1}, int64_t{32}, int64_t{512}, int64_t{4096}, kMaxRows}) {
    for (Work& work : WorksOf(buffers, rows)) all.push_back({std::move(work), nullptr, {}});
  }
  using quiver::cpu::PoolKind;
  for (Work& work : std::vector<Work>{
           PoolOf(buffers, PoolKind::kLastToken, 1, 32, kHidden, "last token, norm 2560"),
           PoolOf(buffers, PoolKind::kLastToken, 64, 512, kHidden, "last token, norm 2560"),
           PoolOf(buffers, PoolKind::kMean, 1, 32, kBertHidden, "mean 384"),
           PoolOf(buffers, PoolKind::kMean, 64, 512, kBertHidden, "mean 384"),
           PoolOf(buffers, PoolKind::kMean, 256, 128, kBertHidden, "mean 384")}) {
    all.push_back({std::move(work), nullptr, {}});
  }
  for (Measured& measured : all) {
    measured.graph = std::make_unique<quiver::Graph>(stream, [&] {
      for (int i = 0; i < kGraphCalls; ++i) measured.work.run(stream);
    });
  }

  const size_t copy_bytes = size_t{1} << 29;
  std::vector<double> copy_ms;
  for (int round = -1; round < arguments.rounds; ++round) {
    for (Measured& measured : all) {
      const double ms = quiver::Time(1, stream, [&] { measured.graph->Run(); });
      if (round >= 0) measured.us.push_back(ms * 1e3 / kGraphCalls);
    }
    const double ms = quiver::CopyMs(copy_bytes, buffers.half, buffers.out, stream);
    if (round >= 0) copy_ms.push_back(ms);
  }

  const double copy_rate = 2.0 * static_cast<double>(copy_bytes) / quiver::Median(copy_ms) * 1e-6;
  std::printf("%s, BF16, median of %d rounds; copy %.0f GB/s\n", properties.name, arguments.rounds,
              copy_rate);
  std::printf("%-28s %7s %10s %8s %6s\n", "operator", "rows", "us", "GB/s", "ratio");
  std::FILE* json =
      arguments.json_path.empty() ? nullptr : std::fopen(arguments.json_path.c_str(), "w");
  if (json != nullptr) {
    std::fprintf(json, "{\"device\": \"%s\", \"copy_gb_per_s\": %.1f, \"rows\": [", properties.name,
                 copy_rate);
  }
  const char* separator = "";
  for (const Measured& measured : all) {
    const double us = quiver::Median(measured.us);
    const double rate = measured.work.bytes / us * 1e-3;
    std::printf("%-28s %7lld %10.2f %8.0f %6.2f\n", measured.work.name.c_str(),
                static_cast<long long>(measured.work.rows), us, rate, rate / copy_rate);
    if (json != nullptr) {
      std::fprintf(json,
                   "%s\n  {\"operator\": \"%s\", \"rows\": %lld, \"us\": %.3f, \"gb_per_s\": %.1f, "
                   "\"of_copy\": %.3f}",
                   separator, measured.work.name.c_str(),
                   static_cast<long long>(measured.work.rows), us, rate, rate / copy_rate);
    }
    separator = ",";
  }
  if (json != nullptr) {
    std::fprintf(json, "\n]}\n");
    std::fclose(json);
  }
  return 0;
}
