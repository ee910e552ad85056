// y = x W^T by cuBLASLt, for benches to compare with.
#ifndef QUIVER_TESTS_KERNELS_CUDA_CUBLAS_PRODUCT_H_
#define QUIVER_TESTS_KERNELS_CUDA_CUBLAS_PRODUCT_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/kernels/cuda/bench_timing.h"

namespace quiver {

inline void Check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "cuBLASLt: status %d\n", static_cast<int>(status));
  std::exit(1);
}

// BF16, with F32 sums. W is [n, k], dense.
class CublasProduct {
 public:
  struct Shape {
    int64_t rows;
    int64_t n;
    int64_t k;
    int64_t x_stride;
    int64_t y_stride;
  };

  // The fastest of cuBLASLt's first proposals over `weights`, one after another.
  CublasProduct(const Shape& shape, const std::vector<void*>& weights, const void* x, void* y,
                cudaStream_t stream) {
    Check(cublasLtCreate(&handle_));
    Check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                         sizeof(transposed)));
    // Column-major: y^T [n, rows] = (W^T [k, n])^T x^T [k, rows].
    const auto rows = static_cast<uint64_t>(shape.rows);
    const auto n = static_cast<uint64_t>(shape.n);
    const auto k = static_cast<uint64_t>(shape.k);
    Check(cublasLtMatrixLayoutCreate(&weight_, CUDA_R_16BF, k, n, shape.k));
    Check(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, k, rows, shape.x_stride));
    Check(cublasLtMatrixLayoutCreate(&y_, CUDA_R_16BF, n, rows, shape.y_stride));
    static void* const workspace = Allocate(kWorkspaceBytes);
    workspace_ = workspace;
    cublasLtMatmulPreference_t preference;
    Check(cublasLtMatmulPreferenceCreate(&preference));
    Check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &kWorkspaceBytes, sizeof(kWorkspaceBytes)));
    cublasLtMatmulHeuristicResult_t results[8];
    int found = 0;
    Check(cublasLtMatmulAlgoGetHeuristic(handle_, operation_, weight_, x_, y_, y_, preference, 8,
                                         results, &found));
    Check(cublasLtMatmulPreferenceDestroy(preference));
    if (found == 0) Check(CUBLAS_STATUS_NOT_SUPPORTED);
    double best = 0;
    for (int i = 0; i < found; ++i) {
      const auto pass = [&] {
        for (const void* weight : weights) Run(results[i].algo, weight, x, y, stream);
      };
      pass();
      const double ms = Time(2, stream, pass);
      if (i == 0 || ms < best) {
        best = ms;
        algorithm_ = results[i].algo;
      }
    }
  }

  void Run(const void* weight, const void* x, void* y, cudaStream_t stream) const {
    Run(algorithm_, weight, x, y, stream);
  }

 private:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  void Run(const cublasLtMatmulAlgo_t& algorithm, const void* weight, const void* x, void* y,
           cudaStream_t stream) const {
    const float one = 1;
    const float zero = 0;
    Check(cublasLtMatmul(handle_, operation_, &one, weight, weight_, x, x_, &zero, y, y_, y, y_,
                         &algorithm, workspace_, kWorkspaceBytes, stream));
  }

  cublasLtHandle_t handle_;
  cublasLtMatmulDesc_t operation_;
  cublasLtMatrixLayout_t weight_;
  cublasLtMatrixLayout_t x_;
  cublasLtMatrixLayout_t y_;
  cublasLtMatmulAlgo_t algorithm_;
  void* workspace_;
};

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_CUBLAS_PRODUCT_H_
