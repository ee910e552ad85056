// y = x W^T by cuBLASLt, of FP8 operands with scales, for benches to compare with.
#ifndef QUIVER_TESTS_KERNELS_CUDA_SCALED_PRODUCT_H_
#define QUIVER_TESTS_KERNELS_CUDA_SCALED_PRODUCT_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/kernels/cuda/bench_timing.h"
#include "tests/kernels/cuda/cublas_product.h"

namespace quiver {

// y[rows, n] = x[rows, k] W[n, k]^T, all dense; y is BF16.
struct ScaledShape {
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  cudaDataType_t type = CUDA_R_16BF;  // of x and W
  // Of FP8.
  cublasLtMatmulMatrixScale_t weight_scale = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  cublasLtMatmulMatrixScale_t x_scale = CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
  bool fast_sums = false;
};

class ScaledProduct {
 public:
  // Measured with each of `weights` in turn. `scales` has as many floats as either operand's scale
  // mode may ask for. Check found() before Run().
  ScaledProduct(const ScaledShape& shape, const std::vector<void*>& weights, const void* x, void* y,
                const float* scales, cudaStream_t stream)
      : x_data_(x), y_data_(y), stream_(stream) {
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      Check(cublasLtMatmulDescSetAttribute(operation_, attribute, &value, sizeof(value)));
    };
    Check(cublasLtCreate(&handle_));
    Check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (shape.type == CUDA_R_8F_E4M3) {
      set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, static_cast<int32_t>(shape.weight_scale));
      set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, static_cast<int32_t>(shape.x_scale));
      set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scales);
      set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scales);
      set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(shape.fast_sums));
    }
    // Column-major: y^T [n, rows] = (W^T [k, n])^T x^T [k, rows].
    const auto n = static_cast<uint64_t>(shape.n);
    const auto k = static_cast<uint64_t>(shape.k);
    const auto rows = static_cast<uint64_t>(shape.rows);
    Check(cublasLtMatrixLayoutCreate(&weight_, shape.type, k, n, shape.k));
    Check(cublasLtMatrixLayoutCreate(&x_, shape.type, k, rows, shape.k));
    Check(cublasLtMatrixLayoutCreate(&y_, CUDA_R_16BF, n, rows, shape.n));
    static void* const workspace = Allocate(kWorkspaceBytes);
    workspace_ = workspace;
    cublasLtMatmulPreference_t preference;
    Check(cublasLtMatmulPreferenceCreate(&preference));
    Check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &kWorkspaceBytes, sizeof(kWorkspaceBytes)));
    constexpr int kProposals = 8;
    cublasLtMatmulHeuristicResult_t results[kProposals];
    int num_results = 0;
    if (cublasLtMatmulAlgoGetHeuristic(handle_, operation_, weight_, x_, y_, y_, preference,
                                       kProposals, results,
                                       &num_results) != CUBLAS_STATUS_SUCCESS) {
      num_results = 0;
    }
    Check(cublasLtMatmulPreferenceDestroy(preference));
    double best = 0;
    for (int i = 0; i < num_results; ++i) {
      bool ok = true;
      const auto pass = [&] {
        for (void* weight : weights) {
          ok = ok && Multiply(results[i].algo, weight) == CUBLAS_STATUS_SUCCESS;
        }
      };
      pass();
      const double ms = ok ? Time(2, stream_, pass) : 0;
      if (!ok || (found_ && ms >= best)) continue;
      best = ms;
      found_ = true;
      algorithm_ = results[i].algo;
    }
  }

  bool found() const { return found_; }
  void Run(void* weight) const { Check(Multiply(algorithm_, weight)); }

 private:
  static constexpr size_t kWorkspaceBytes = size_t{64} << 20;

  cublasStatus_t Multiply(const cublasLtMatmulAlgo_t& algorithm, void* weight) const {
    const float one = 1;
    const float zero = 0;
    return cublasLtMatmul(handle_, operation_, &one, weight, weight_, x_data_, x_, &zero, y_data_,
                          y_, y_data_, y_, &algorithm, workspace_, kWorkspaceBytes, stream_);
  }

  const void* x_data_;
  void* y_data_;
  cudaStream_t stream_;
  bool found_ = false;
  cublasLtHandle_t handle_;
  cublasLtMatmulDesc_t operation_;
  cublasLtMatrixLayout_t weight_;
  cublasLtMatrixLayout_t x_;
  cublasLtMatrixLayout_t y_;
  cublasLtMatmulAlgo_t algorithm_;
  void* workspace_;
};

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_SCALED_PRODUCT_H_
