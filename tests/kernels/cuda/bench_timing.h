// What the device benches share: memory, checks and timing of work on the default stream.
#ifndef QUIVER_TESTS_KERNELS_CUDA_BENCH_TIMING_H_
#define QUIVER_TESTS_KERNELS_CUDA_BENCH_TIMING_H_

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace quiver {

inline void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

// Never given back: a bench ends with its process.
inline void* Allocate(size_t bytes) {
  void* data = nullptr;
  Check(cudaMalloc(&data, bytes));
  return data;
}

// Milliseconds of one call of `work`, over `calls` calls in a row in `stream`.
inline double Time(int calls, cudaStream_t stream, const std::function<void()>& work) {
  cudaEvent_t begin;
  cudaEvent_t end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  Check(cudaEventRecord(begin, stream));
  for (int i = 0; i < calls; ++i) work();
  Check(cudaEventRecord(end, stream));
  Check(cudaEventSynchronize(end));
  float ms = 0;
  Check(cudaEventElapsedTime(&ms, begin, end));
  Check(cudaEventDestroy(begin));
  Check(cudaEventDestroy(end));
  return ms / calls;
}

inline double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A graph of what `work` puts into `stream`, so that launches cost the host nothing.
class Graph {
 public:
  Graph(cudaStream_t stream, const std::function<void()>& work) : stream_(stream) {
    cudaGraph_t graph;
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    Check(cudaStreamEndCapture(stream, &graph));
    Check(cudaGraphInstantiate(&executable_, graph, 0));
    Check(cudaGraphDestroy(graph));
  }
  ~Graph() { cudaGraphExecDestroy(executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void Run() const { Check(cudaGraphLaunch(executable_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_;
};

// Milliseconds to copy `bytes` on the device (which reads and writes as many), from memory and to
// memory that the cache cannot hold between calls.
inline double CopyMs(size_t bytes, void* from, void* to, cudaStream_t stream) {
  return Time(4, stream,
              [&] { Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream)); });
}

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_BENCH_TIMING_H_
