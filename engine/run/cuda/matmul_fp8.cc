// Products in FP8: E4M3 weights and x, with a scale for each row of either.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/activation_layout.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/matmul.h"

namespace quiver {
namespace {

// As cuBLASLt has it, column-major: out^T = weight * x^T.
struct Fp8Product {
  Fp8Product(const MatmulOperands& operands, const Fp8Rows& x_rows, cudaDataType_t out_type) {
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
    set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, x_rows.scales);
    // Sums that stay in the tensor cores, with 14 bits, as they come.
    set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, int8_t{1});
    init(&weight, CUDA_R_8F_E4M3, operands.k, operands.n, operands.k);
    init(&x, CUDA_R_8F_E4M3, operands.k, operands.rows, x_rows.stride);
    init(&out, out_type, operands.n, operands.rows, operands.out_stride);
  }

  cublasLtMatmulDescOpaque_t description;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t out;
  bool ok = false;
};

// x in FP8 in the scratch: codes, a multiple of 16 bytes, then scales.
Fp8Rows ScratchRows(const MatmulOperands& operands, std::byte* at) {
  return {at, operands.k, reinterpret_cast<float*>(at + operands.rows * operands.k)};
}

// Where x lies, for what does not read it.
Fp8Rows RowsToDescribe(const MatmulOperands& operands) {
  return operands.x_fp8.codes != nullptr ? operands.x_fp8 : ScratchRows(operands, nullptr);
}

// Of a weight that is expanded, as many rows as there is room for.
int64_t RowsAtOnce(const MatmulOperands& operands, int64_t room) {
  if (room >= operands.n * operands.k) return operands.n;
  return room / (kInt4PanelRows * operands.k) * kInt4PanelRows;
}

}  // namespace

std::vector<MatmulAlgorithm> Matmul::Fp8Candidates(const MatmulOperands& operands,
                                                   int64_t workspace_bytes, int most) const {
  Fp8Product product(operands, RowsToDescribe(operands), type_);
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
  std::vector<MatmulAlgorithm> algorithms = OwnCandidates(operands, most);
  const size_t ours = algorithms.size();
  for (int i = 0; i < found; ++i) {
    if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
    MatmulAlgorithm algorithm;
    std::memcpy(algorithm.data(), &results[i].algo, sizeof(algorithm));
    algorithms.push_back(algorithm);
  }
  // Where the library has none for so many rows.
  if (algorithms.size() == ours) algorithms.push_back(kExpandAlgorithm);
  return algorithms;
}

bool Matmul::TakesFp8(const MatmulAlgorithm& algorithm, const MatmulOperands& operands) const {
  if (algorithm == MatmulAlgorithm() || algorithm == kFewRowsAlgorithm ||
      algorithm == kExpandAlgorithm) {
    return false;
  }
  if (HopperTileOf(algorithm).has_value()) return TakesHopper(operands);
  Fp8Product product(operands, RowsToDescribe(operands), type_);
  cublasLtMatmulAlgo_t algo;
  std::memcpy(&algo, algorithm.data(), sizeof(algo));
  cublasLtMatmulHeuristicResult_t result;
  return product.ok &&
         cublasLtMatmulAlgoCheck(handle_, &product.description, &product.weight, &product.x,
                                 &product.out, &product.out, &algo,
                                 &result) == CUBLAS_STATUS_SUCCESS &&
         result.state == CUBLAS_STATUS_SUCCESS;
}

absl::Status Matmul::MultiplyFp8(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                                 const MatmulScratch& scratch) const {
  const bool is_int4 = operands.form.kind == WeightKind::kInt4;
  const bool quantizes = operands.x_fp8.codes == nullptr;
  // Where x becomes FP8 here, it does so at the end of the room.
  MatmulScratch weight_scratch = scratch;
  Fp8Rows x = operands.x_fp8;
  CudaCalls calls;
  if (quantizes) {
    if (scratch.kept != nullptr) scratch.kept->Forget();
    weight_scratch.kept = nullptr;
    weight_scratch.expanded_bytes =
        (scratch.expanded_bytes - operands.rows * Fp8RowBytes(operands.k)) / kArenaAlignment *
        kArenaAlignment;
    if (weight_scratch.expanded_bytes < 0) {
      return absl::InternalError("no room for a product's input in FP8");
    }
    x = ScratchRows(operands,
                    static_cast<std::byte*>(scratch.expanded) + weight_scratch.expanded_bytes);
    calls(QuantizeRows(half_type_, operands.x, operands.x_stride, operands.rows, operands.k, x,
                       scratch.stream),
          "quantizing a product's input");
  }
  const int64_t most = is_int4 ? RowsAtOnce(operands, weight_scratch.expanded_bytes) : operands.n;
  if (most <= 0) return absl::InternalError("no room for a product's weight in FP8");
  for (int64_t first = 0; first < operands.n && calls.ok(); first += most) {
    MatmulOperands part = operands;
    part.n = std::min(most, operands.n - first);
    MatmulAlgorithm of_part = algorithm;
    if (part.n < operands.n) {
      of_part = Fp8Candidates(part, scratch.workspace_bytes, 1)[0];
      part.epilogue = MatmulEpilogue::kNone;
    }
    if (is_int4) {
      part.weight_scales += first;
      part.out = static_cast<std::byte*>(operands.out) + 2 * first;
      const absl::StatusOr<std::byte*> place =
          PlaceOf(operands, first, part.n, part.n * operands.k, weight_scratch, [&](std::byte* to) {
            const Fp8Rows rows = {to, operands.k, const_cast<float*>(part.weight_scales)};
            return ExpandInt4ToFp8(Int4Of(operands), first, part.n, rows, scratch.stream);
          });
      if (!place.ok()) return place.status();
      part.weight = *place;
    }
    calls(MultiplyFp8Rows(of_part, part, x, scratch));
  }
  if (!calls.ok()) return calls.status();
  const bool is_followed = most >= operands.n && HopperTileOf(algorithm).has_value();
  return is_followed ? Quantized(operands, scratch.stream) : Follow(operands, scratch.stream);
}

absl::Status Matmul::MultiplyFp8Rows(const MatmulAlgorithm& algorithm,
                                     const MatmulOperands& operands, const Fp8Rows& x,
                                     const MatmulScratch& scratch) const {
  if (const std::optional<HopperMatmulTile> tile = HopperTileOf(algorithm); tile.has_value()) {
    MatmulOperands fp8 = operands;
    fp8.x = x.codes;
    fp8.x_stride = x.stride;
    return MultiplyOnHopper(*tile, fp8, x.scales, scratch.stream);
  }
  Fp8Product product(operands, x, type_);
  if (!product.ok) return absl::InternalError("cuBLASLt: describing a product in FP8");
  constexpr float kOne = 1;
  constexpr float kZero = 0;
  cublasLtMatmulAlgo_t algo;
  std::memcpy(&algo, algorithm.data(), sizeof(algo));
  const cublasStatus_t result = cublasLtMatmul(
      handle_, &product.description, &kOne, operands.weight, &product.weight, x.codes, &product.x,
      &kZero, operands.out, &product.out, operands.out, &product.out, &algo, scratch.workspace,
      static_cast<size_t>(scratch.workspace_bytes), scratch.stream);
  if (result != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError(
        absl::StrCat("cuBLASLt: multiplying in FP8: ", cublasLtGetStatusString(result)));
  }
  return absl::OkStatus();
}

}  // namespace quiver
