// Products with the weights of many layers in turn, measured against a copy on the device.
#ifndef QUIVER_TESTS_KERNELS_CUDA_LAYERS_BENCH_H_
#define QUIVER_TESTS_KERNELS_CUDA_LAYERS_BENCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/cuda/bench_arguments.h"
#include "tests/kernels/cuda/bench_timing.h"

namespace quiver {

class LayersBench {
 public:
  LayersBench(int num_layers, cudaStream_t stream) : num_layers_(num_layers), stream_(stream) {}

  // `work` puts `rows` rows through all layers into the stream, and reads `bytes` of weights.
  void Add(const std::string& name, int64_t rows, double bytes, const std::function<void()>& work) {
    all_.push_back({name, rows, bytes, std::make_unique<Graph>(stream_, work), {}});
  }

  // Each work once a round, and a copy after them. Prints medians, under a line with the device,
  // the copy's rate and `what`; JSON as well.
  void Run(const BenchArguments& arguments, const std::string& what) {
    constexpr size_t kCopyBytes = size_t{1} << 30;
    void* from = Allocate(kCopyBytes);
    void* to = Allocate(kCopyBytes);
    std::vector<double> copy_ms;
    for (int round = -1; round < arguments.rounds; ++round) {
      for (Measured& measured : all_) {
        const double ms = Time(1, stream_, [&] { measured.graph->Run(); });
        if (round >= 0) measured.ms.push_back(ms);
      }
      const double ms = CopyMs(kCopyBytes, from, to, stream_);
      if (round >= 0) copy_ms.push_back(ms);
    }
    Report(arguments, what, 2.0 * static_cast<double>(kCopyBytes) / Median(copy_ms) * 1e-6);
  }

 private:
  struct Measured {
    std::string name;
    int64_t rows;
    double bytes;
    std::unique_ptr<Graph> graph;
    std::vector<double> ms;
  };

  void Report(const BenchArguments& arguments, const std::string& what, double copy_rate) const {
    cudaDeviceProp properties;
    Check(cudaGetDeviceProperties(&properties, 0));
    std::printf("%s, median of %d rounds; copy %.0f GB/s; %s\n", properties.name, arguments.rounds,
                copy_rate, what.c_str());
    std::printf("%-28s %5s %10s %10s %8s %6s\n", "work", "rows", "ms", "us a layer", "GB/s",
                "ratio");
    std::FILE* json =
        arguments.json_path.empty() ? nullptr : std::fopen(arguments.json_path.c_str(), "w");
    if (json != nullptr) {
      std::fprintf(json, "{\"device\": \"%s\", \"copy_gb_per_s\": %.1f, \"rows\": [",
                   properties.name, copy_rate);
    }
    const char* separator = "";
    for (const Measured& measured : all_) {
      const double ms = Median(measured.ms);
      const double rate = measured.bytes / ms * 1e-6;
      const auto rows = static_cast<int>(measured.rows);
      std::printf("%-28s %5d %10.3f %10.2f %8.0f %6.2f\n", measured.name.c_str(), rows, ms,
                  ms * 1e3 / num_layers_, rate, rate / copy_rate);
      if (json != nullptr) {
        std::fprintf(json,
                     "%s\n  {\"work\": \"%s\", \"rows\": %d, \"ms\": %.4f, \"gb_per_s\": %.1f, "
                     "\"of_copy\": %.3f}",
                     separator, measured.name.c_str(), rows, ms, rate, rate / copy_rate);
      }
      separator = ",";
    }
    if (json != nullptr) {
      std::fprintf(json, "\n]}\n");
      std::fclose(json);
    }
  }

  const int num_layers_;
  const cudaStream_t stream_;
  std::vector<Measured> all_;
};

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_LAYERS_BENCH_H_
