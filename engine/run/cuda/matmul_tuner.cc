#include "engine/run/cuda/matmul_tuner.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "engine/run/cuda/cuda_status.h"

namespace quiver {
namespace {

constexpr int kMaxCandidates = 6;
// Runs of a measurement: small products are short, and vary.
constexpr int64_t kSmallRows = 512;
constexpr int kSmallRuns = 12;
constexpr int kLargeRuns = 3;

// Measures time on the device between two points of a stream.
class Stopwatch {
 public:
  Stopwatch() {
    calls_(cudaEventCreate(&begin_), "creating an event");
    calls_(cudaEventCreate(&end_), "creating an event");
  }
  ~Stopwatch() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  void Start(cudaStream_t stream) { calls_(cudaEventRecord(begin_, stream), "measuring"); }
  // Waits for the stream.
  float StopMs(cudaStream_t stream) {
    calls_(cudaEventRecord(end_, stream), "measuring");
    calls_(cudaEventSynchronize(end_), "measuring a matrix product");
    float ms = 0;
    calls_(cudaEventElapsedTime(&ms, begin_, end_), "measuring");
    return ms;
  }
  const absl::Status& status() const { return calls_.status(); }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  CudaCalls calls_;
};

std::optional<MatmulAlgorithm> Fastest(const MatmulCase& product, int64_t rows,
                                       const MatmulScratch& scratch, Matmul* matmul,
                                       Stopwatch* stopwatch) {
  MatmulOperands operands = product.operands;
  operands.rows = rows;
  const int runs = rows <= kSmallRows ? kSmallRuns : kLargeRuns;
  std::optional<MatmulAlgorithm> best;
  float best_ms = std::numeric_limits<float>::max();
  size_t next = 0;
  const auto run = [&](const MatmulAlgorithm& algorithm) {
    operands.weight = product.weights[next++ % product.weights.size()];
    return matmul->RunWith(algorithm, operands, scratch).ok();
  };
  for (const MatmulAlgorithm& algorithm :
       matmul->Candidates(operands, scratch.workspace_bytes, kMaxCandidates)) {
    // The first run loads the code.
    if (!run(algorithm)) continue;
    stopwatch->Start(scratch.stream);
    bool ok = true;
    for (int i = 0; i < runs && ok; ++i) ok = run(algorithm);
    const float ms = stopwatch->StopMs(scratch.stream);
    if (ok && stopwatch->status().ok() && ms < best_ms) {
      best = algorithm;
      best_ms = ms;
    }
  }
  return best;
}

}  // namespace

std::vector<MatmulCase> CasesOf(const std::vector<MatmulOperands>& layers) {
  std::vector<MatmulCase> cases;
  for (const MatmulOperands& operands : layers) {
    const auto same = std::find_if(cases.begin(), cases.end(), [&](const MatmulCase& product) {
      return product.operands.form == operands.form;
    });
    if (same != cases.end()) {
      same->weights.push_back(operands.weight);
    } else {
      cases.push_back({operands, {operands.weight}});
    }
  }
  return cases;
}

absl::Status TuneMatmuls(const std::vector<MatmulCase>& cases, MatmulScratch scratch,
                         Matmul* matmul, MatmulCache* cache) {
  // What is measured is a product with all that it takes the first time.
  if (scratch.kept != nullptr) scratch.kept->Forget();
  scratch.kept = nullptr;
  Stopwatch stopwatch;
  for (const MatmulCase& product : cases) {
    const int64_t most = product.operands.rows;
    for (int64_t rows = MatmulRowBucket(1);; rows = NextMatmulRowBucket(rows)) {
      MatmulKey key = product.operands.key();
      key.rows = rows;
      MatmulOperands operands = product.operands;
      operands.rows = std::min(rows, most);
      operands.weight = product.weights[0];
      std::optional<MatmulAlgorithm> algorithm = cache->Find(key);
      // Run once all the same, so that its code is loaded before the first request.
      if (!algorithm.has_value() || !matmul->RunWith(*algorithm, operands, scratch).ok()) {
        algorithm = Fastest(product, operands.rows, scratch, matmul, &stopwatch);
        if (!stopwatch.status().ok()) return stopwatch.status();
        if (algorithm.has_value()) cache->Put(key, *algorithm);
      }
      if (algorithm.has_value()) matmul->Choose(key, *algorithm);
      if (rows >= most) break;
    }
  }
  return CudaStatus(cudaStreamSynchronize(scratch.stream), "measuring matrix products");
}

}  // namespace quiver
