// Products in FP8: E4M3 weights with a scale for each row, and x quantized just before the product
// with a scale for each row of its own.
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/matmul.h"
#include "kernels/cuda/fp8.h"

namespace quiver {
namespace {

// As cuBLASLt has it, column-major: out^T = weight * x^T.
struct Fp8Product {
  // `x_scales` [rows]. x is dense.
  Fp8Product(const MatmulOperands& operands, const float* x_scales, cudaDataType_t out_type) {
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
      ok = ok && cublasLtMatmulDescSetAttribute(&description, attribute, &value, sizeof(value)) ==
                     CUBLAS_STATUS_SUCCESS;
    };
    const auto init = [&](cublasLtMatrixLayoutOpaque_t* layout, cudaDataType_t type, int64_t rows,
                          int64_t cols, int64_t stride) {
      ok = ok &&
           cublasLtMatrixLayoutInit(layout, type, static_cast<uint64_t>(rows),
                                    static_cast<uint64_t>(cols), stride) == CUBLAS_STATUS_SUCCESS;
    };
    ok = cublasLtMatmulDescInit(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
         CUBLAS_STATUS_SUCCESS;
    const auto row_scales = static_cast<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, row_scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, row_scales);
    set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands.weight_scales);
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, x_scales);
    init(&weight, CUDA_R_8F_E4M3, operands.k, operands.n, operands.k);
    init(&x, CUDA_R_8F_E4M3, operands.k, operands.rows, operands.k);
    init(&out, out_type, operands.n, operands.rows, operands.out_stride);
  }

  cublasLtMatmulDescOpaque_t description;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t out;
  bool ok = false;
};

}  // namespace

std::vector<MatmulAlgorithm> Matmul::Fp8Candidates(const MatmulOperands& operands,
                                                   int64_t workspace_bytes, int most) const {
  Fp8Product product(operands, operands.weight_scales, type_);
  cublasLtMatmulPreferenceOpaque_t preference;
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
  int found = 0;
  const auto bytes = static_cast<uint64_t>(workspace_bytes);
  if (!product.ok || cublasLtMatmulPreferenceInit(&preference) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &bytes, sizeof(bytes)) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulAlgoGetHeuristic(handle_, &product.description, &product.weight, &product.x,
                                     &product.out, &product.out, &preference, most, results.data(),
                                     &found) != CUBLAS_STATUS_SUCCESS) {
    found = 0;
  }
  std::vector<MatmulAlgorithm> algorithms;
  if (TakesFewRows(operands) && most > 1) algorithms.push_back(kFewRowsAlgorithm);
  const size_t ours = algorithms.size();
  for (int i = 0; i < found; ++i) {
    if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
    MatmulAlgorithm algorithm;
    std::memcpy(algorithm.data(), &results[i].algo, sizeof(algorithm));
    algorithms.push_back(algorithm);
  }
  // Where the library has none for so many rows.
  if (algorithms.size() == ours) algorithms.push_back(kExpandFp8Algorithm);
  return algorithms;
}

absl::Status Matmul::MultiplyFp8(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                                 const MatmulScratch& scratch) const {
  if (operands.rows * Fp8RowBytes(operands.k) > scratch.expanded_bytes) {
    return absl::InternalError("no room for a product's input in FP8");
  }
  // Codes, a multiple of 16 bytes, then scales.
  auto* scales = reinterpret_cast<float*>(static_cast<std::byte*>(scratch.expanded) +
                                          operands.rows * operands.k);
  const absl::Status status =
      CudaStatus(QuantizeRows(half_type_, operands.x, operands.x_stride, operands.rows, operands.k,
                              scratch.expanded, scales, scratch.stream),
                 "quantizing a product's input");
  if (!status.ok()) return status;
  Fp8Product product(operands, scales, type_);
  if (!product.ok) return absl::InternalError("cuBLASLt: describing a product in FP8");
  constexpr float kOne = 1;
  constexpr float kZero = 0;
  cublasLtMatmulAlgo_t algo;
  std::memcpy(&algo, algorithm.data(), sizeof(algo));
  const cublasStatus_t result = cublasLtMatmul(
      handle_, &product.description, &kOne, operands.weight, &product.weight, scratch.expanded,
      &product.x, &kZero, operands.out, &product.out, operands.out, &product.out, &algo,
      scratch.workspace, static_cast<size_t>(scratch.workspace_bytes), scratch.stream);
  if (result != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(
        absl::StrCat("cuBLASLt: multiplying in FP8: ", cublasLtGetStatusString(result)));
  }
  return absl::OkStatus();
}

}  // namespace quiver
