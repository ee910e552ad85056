#include "engine/run/cuda/matmul.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_status.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/few_rows_matmul.h"
#include "kernels/cuda/fp8_few_rows.h"
#include "kernels/cuda/int4_few_rows.h"
#include "kernels/cuda/rope.h"

namespace quiver {
namespace {

// cuBLASLt is column-major: the row-major product is computed as out^T = weight * x^T, where the
// transposes are the same memory.
constexpr cublasOperation_t kWeightOperation = CUBLAS_OP_T;
constexpr uint32_t kOperandAlignment = 16;
// The first word of HopperAlgorithm().
constexpr uint64_t kHopperMark = ~uint64_t{1};

absl::Status CublasError(cublasStatus_t status, const char* what) {
  return absl::InternalError(
      absl::StrCat("cuBLASLt: ", what, ": ", cublasLtGetStatusString(status)));
}

static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(MatmulAlgorithm));

cublasLtMatmulAlgo_t ToCublas(const MatmulAlgorithm& algorithm) {
  cublasLtMatmulAlgo_t out;
  std::memcpy(&out, algorithm.data(), sizeof(out));
  return out;
}

}  // namespace

MatmulAlgorithm HopperAlgorithm(const HopperMatmulTile& tile) {
  return {kHopperMark, static_cast<uint64_t>(tile.columns),
          static_cast<uint64_t>(tile.cluster_blocks)};
}

std::optional<HopperMatmulTile> HopperTileOf(const MatmulAlgorithm& algorithm) {
  if (algorithm[0] != kHopperMark) return std::nullopt;
  return HopperMatmulTile{static_cast<int>(algorithm[1]), static_cast<int>(algorithm[2])};
}

struct Matmul::Layouts {
  Layouts(const MatmulOperands& operands, cudaDataType_t type) {
    const auto init = [&](cublasLtMatrixLayoutOpaque_t* layout, int64_t rows, int64_t cols,
                          int64_t stride) {
      return cublasLtMatrixLayoutInit(layout, type, static_cast<uint64_t>(rows),
                                      static_cast<uint64_t>(cols), stride) == CUBLAS_STATUS_SUCCESS;
    };
    ok = init(&weight, operands.k, operands.n, operands.k) &&
         init(&x, operands.k, operands.rows, operands.x_stride) &&
         init(&out, operands.n, operands.rows, operands.out_stride);
  }

  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t out;
  bool ok = false;
};

absl::StatusOr<std::unique_ptr<Matmul>> Matmul::Create(HalfType type, bool force_portable) {
  std::unique_ptr<Matmul> matmul(new Matmul);
  matmul->half_type_ = type;
  matmul->type_ = type == HalfType::kBf16 ? CUDA_R_16BF : CUDA_R_16F;
  cublasStatus_t status = cublasLtCreate(&matmul->handle_);
  if (status != CUBLAS_STATUS_SUCCESS) return CublasError(status, "creating a handle");
  status = cublasLtMatmulDescCreate(&matmul->description_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  if (status == CUBLAS_STATUS_SUCCESS) {
    status = cublasLtMatmulDescSetAttribute(matmul->description_, CUBLASLT_MATMUL_DESC_TRANSA,
                                            &kWeightOperation, sizeof(kWeightOperation));
  }
  if (status != CUBLAS_STATUS_SUCCESS) return CublasError(status, "describing a product");
  bool is_hopper = false;
  CudaCalls calls;
  calls(HopperMatmulIsSupported(&is_hopper), "asking for the device's products");
  if (is_hopper && !force_portable) {
    int device = 0;
    calls(cudaGetDevice(&device), "asking for the device");
    calls(cudaDeviceGetAttribute(&matmul->hopper_multiprocessors_, cudaDevAttrMultiProcessorCount,
                                 device),
          "asking for the device's properties");
  }
  if (!calls.ok()) return calls.status();
  return matmul;
}

Matmul::~Matmul() {
  if (description_ != nullptr) cublasLtMatmulDescDestroy(description_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

bool Matmul::WantsFp8(const MatmulOperands& operands, const MatmulScratch& scratch) {
  if (!operands.form.fp8_inputs) return false;
  MatmulAlgorithm& chosen = chosen_[Hashable(operands.key())];
  const bool is_ours =
      chosen == kFewRowsAlgorithm ? TakesFewRows(operands) : chosen == kExpandAlgorithm;
  if (is_ours) return false;
  if (TakesFp8(chosen, operands)) return true;
  // None yet, or one that was chosen for the most rows of its key and does not take these.
  chosen = Fp8Candidates(operands, scratch.workspace_bytes, /*most=*/1)[0];
  return chosen != kExpandAlgorithm;
}

absl::Status Matmul::Run(const MatmulOperands& operands, const MatmulScratch& scratch) {
  const HashableKey key = Hashable(operands.key());
  // Which settles the algorithm.
  if (operands.form.fp8_inputs) {
    WantsFp8(operands, scratch);
    return RunWith(chosen_[key], operands, scratch);
  }
  const auto found = chosen_.find(key);
  if (found != chosen_.end() && RunWith(found->second, operands, scratch).ok()) {
    return absl::OkStatus();
  }
  // None yet, or one that was chosen for the most rows of its key and does not take these.
  const std::vector<MatmulAlgorithm> guesses =
      Candidates(operands, scratch.workspace_bytes, /*most=*/1);
  if (guesses.empty()) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no algorithm for ", operands.rows, " x ",
                                            operands.n, " x ", operands.k));
  }
  const absl::Status status = RunWith(guesses[0], operands, scratch);
  if (status.ok()) chosen_[key] = guesses[0];
  return status;
}

std::vector<MatmulAlgorithm> Matmul::Candidates(const MatmulOperands& operands,
                                                int64_t workspace_bytes, int most) {
  if (operands.form.fp8_inputs) {
    return Fp8Candidates(operands, workspace_bytes, most);
  }
  Layouts layouts(operands, type_);
  cublasLtMatmulPreferenceOpaque_t preference;
  if (!layouts.ok || cublasLtMatmulPreferenceInit(&preference) != CUBLAS_STATUS_SUCCESS) return {};
  const auto bytes = static_cast<uint64_t>(workspace_bytes);
  cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &bytes, sizeof(bytes));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &kOperandAlignment,
                                         sizeof(kOperandAlignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
  int found = 0;
  if (cublasLtMatmulAlgoGetHeuristic(handle_, description_, &layouts.weight, &layouts.x,
                                     &layouts.out, &layouts.out, &preference, most, results.data(),
                                     &found) != CUBLAS_STATUS_SUCCESS) {
    return {};
  }
  std::vector<MatmulAlgorithm> algorithms = OwnCandidates(operands, most);
  for (int i = 0; i < found; ++i) {
    if (results[i].state != CUBLAS_STATUS_SUCCESS) continue;
    MatmulAlgorithm algorithm;
    std::memcpy(algorithm.data(), &results[i].algo, sizeof(algorithm));
    algorithms.push_back(algorithm);
  }
  return algorithms;
}

std::vector<MatmulAlgorithm> Matmul::OwnCandidates(const MatmulOperands& operands, int most) const {
  std::vector<MatmulAlgorithm> algorithms;
  if (most == 1) return algorithms;
  if (TakesFewRows(operands)) algorithms.push_back(kFewRowsAlgorithm);
  if (operands.rows > kMaxFewRows && TakesHopper(operands)) {
    for (const HopperMatmulTile& tile : LikelyHopperMatmulTiles(
             operands.epilogue, operands.rows, operands.n, hopper_multiprocessors_)) {
      algorithms.push_back(HopperAlgorithm(tile));
    }
  }
  return algorithms;
}

bool Matmul::TakesHopper(const MatmulOperands& operands) const {
  return hopper_multiprocessors_ > 0 && (operands.epilogue != MatmulEpilogue::kQkNormRope ||
                                         operands.head_dim == kHopperMatmulHeadDim);
}

bool Matmul::TakesFewRows(const MatmulOperands& operands) const {
  switch (operands.form.kind) {
    case WeightKind::kHalf:
      return operands.rows <= kMaxFewRows;
    case WeightKind::kInt4:
      return hopper_multiprocessors_ > 0 && operands.rows <= kMaxInt4Rows;
    case WeightKind::kFp8:
      return hopper_multiprocessors_ > 0 && operands.rows <= kMaxFp8Rows;
  }
  return false;
}

absl::Status Matmul::RunWith(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                             const MatmulScratch& scratch) {
  if (operands.form.kind != WeightKind::kHalf && algorithm == kFewRowsAlgorithm) {
    const absl::Status status = MultiplyFewRowsByCodes(operands, scratch.stream);
    if (!status.ok()) return status;
    return Follow(operands, scratch.stream);
  }
  if (operands.form.fp8_inputs) {
    if (algorithm == kExpandAlgorithm) return MultiplyInParts(operands, scratch);
    return MultiplyFp8(algorithm, operands, scratch);
  }
  if (operands.form.kind != WeightKind::kHalf) {
    return MultiplyExpanded(algorithm, operands, scratch);
  }
  if (const std::optional<HopperMatmulTile> tile = HopperTileOf(algorithm); tile.has_value()) {
    return MultiplyOnHopper(*tile, operands, /*x_scales=*/nullptr, scratch.stream);
  }
  const absl::Status status = algorithm == kFewRowsAlgorithm
                                  ? MultiplyFewRows(operands, scratch)
                                  : Multiply(algorithm, operands, scratch);
  if (!status.ok()) return status;
  return Follow(operands, scratch.stream);
}

absl::Status Matmul::Multiply(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                              const MatmulScratch& scratch) const {
  Layouts layouts(operands, type_);
  if (!layouts.ok) return absl::InternalError("cuBLASLt: describing a matrix");
  constexpr float kOne = 1;
  constexpr float kZero = 0;
  const cublasLtMatmulAlgo_t algo = ToCublas(algorithm);
  const cublasStatus_t status = cublasLtMatmul(
      handle_, description_, &kOne, operands.weight, &layouts.weight, operands.x, &layouts.x,
      &kZero, operands.out, &layouts.out, operands.out, &layouts.out, &algo, scratch.workspace,
      static_cast<size_t>(scratch.workspace_bytes), scratch.stream);
  if (status != CUBLAS_STATUS_SUCCESS) return CublasError(status, "multiplying");
  return absl::OkStatus();
}

absl::Status Matmul::MultiplyFewRows(const MatmulOperands& operands,
                                     const MatmulScratch& scratch) const {
  const FewRowsTensors tensors = {.x = operands.x,
                                  .x_stride = operands.x_stride,
                                  .weight = operands.weight,
                                  .y = operands.out,
                                  .y_stride = operands.out_stride,
                                  .rows = operands.rows,
                                  .out_features = operands.n,
                                  .in_features = operands.k,
                                  .type = half_type_,
                                  .workspace = scratch.few_rows_workspace};
  return CudaStatus(FewRowsMatmul(tensors, scratch.stream), "multiplying few rows");
}

Int4Matrix Matmul::Int4Of(const MatmulOperands& operands) const {
  return {.data = operands.weight,
          .n = operands.n,
          .k = operands.k,
          .group = operands.form.group,
          .type = half_type_};
}

absl::Status Matmul::MultiplyFewRowsByCodes(const MatmulOperands& operands,
                                            cudaStream_t stream) const {
  if (!TakesFewRows(operands)) {
    return absl::FailedPreconditionError("an algorithm of another device or path");
  }
  cudaError_t error;
  if (operands.form.kind == WeightKind::kInt4) {
    const Int4FewRowsTensors tensors = {.x = operands.x,
                                        .x_stride = operands.x_stride,
                                        .weight = Int4Of(operands),
                                        .y = operands.out,
                                        .y_stride = operands.out_stride,
                                        .rows = operands.rows};
    error = Int4FewRows(tensors, stream);
  } else {
    const Fp8FewRowsTensors tensors = {.x = operands.x,
                                       .x_stride = operands.x_stride,
                                       .codes = operands.weight,
                                       .scales = operands.weight_scales,
                                       .y = operands.out,
                                       .y_stride = operands.out_stride,
                                       .rows = operands.rows,
                                       .out_features = operands.n,
                                       .in_features = operands.k,
                                       .type = half_type_};
    error = Fp8FewRows(tensors, stream);
  }
  return CudaStatus(error, "multiplying few rows");
}

absl::StatusOr<std::byte*> Matmul::PlaceOf(
    const MatmulOperands& operands, int64_t first, int64_t rows, int64_t bytes,
    const MatmulScratch& scratch, const std::function<cudaError_t(std::byte*)>& make) const {
  auto* room = static_cast<std::byte*>(scratch.expanded);
  ExpandedWeights::Place place;
  if (scratch.kept != nullptr) {
    if (first == 0 && rows == operands.n) {
      place = scratch.kept->Take(operands.weight, bytes, scratch.expanded_bytes);
    } else {
      scratch.kept->Forget();
    }
  }
  if (place.is_made) return room + place.offset;
  const absl::Status status = CudaStatus(make(room + place.offset), "expanding a weight");
  if (status.ok()) return room + place.offset;
  if (scratch.kept != nullptr) scratch.kept->Forget();
  return status;
}

absl::StatusOr<MatmulOperands> Matmul::Expand(const MatmulOperands& operands, int64_t first,
                                              int64_t rows, const MatmulScratch& scratch) const {
  const absl::StatusOr<std::byte*> place = PlaceOf(
      operands, first, rows, WeightForm().Bytes(rows, operands.k), scratch, [&](std::byte* to) {
        if (operands.form.kind == WeightKind::kInt4) {
          return ExpandInt4(Int4Of(operands), first, rows, to, scratch.stream);
        }
        const auto* codes = static_cast<const std::byte*>(operands.weight) + first * operands.k;
        return ExpandFp8(half_type_, codes, operands.weight_scales + first, rows, operands.k, to,
                         scratch.stream);
      });
  if (!place.ok()) return place.status();
  MatmulOperands expanded = operands;
  expanded.weight = *place;
  expanded.form = {};
  expanded.out = static_cast<std::byte*>(operands.out) + 2 * first;
  expanded.n = rows;
  return expanded;
}

absl::Status Matmul::MultiplyExpanded(const MatmulAlgorithm& algorithm,
                                      const MatmulOperands& operands,
                                      const MatmulScratch& scratch) {
  if (scratch.expanded_bytes < WeightForm().Bytes(operands.n, operands.k)) {
    return MultiplyInParts(operands, scratch);
  }
  const absl::StatusOr<MatmulOperands> expanded = Expand(operands, 0, operands.n, scratch);
  if (!expanded.ok()) return expanded.status();
  return RunWith(algorithm, *expanded, scratch);
}

absl::Status Matmul::MultiplyInParts(const MatmulOperands& operands, const MatmulScratch& scratch) {
  const int64_t most =
      scratch.expanded_bytes / WeightForm().Bytes(kInt4PanelRows, operands.k) * kInt4PanelRows;
  if (most == 0) {
    return absl::InternalError(absl::StrCat("no room to expand rows of ", operands.k,
                                            " columns in ", scratch.expanded_bytes, " bytes"));
  }
  for (int64_t first = 0; first < operands.n; first += most) {
    absl::StatusOr<MatmulOperands> part =
        Expand(operands, first, std::min(most, operands.n - first), scratch);
    if (!part.ok()) return part.status();
    part->epilogue = MatmulEpilogue::kNone;
    const absl::Status status = Run(*part, scratch);
    if (!status.ok()) return status;
  }
  return Follow(operands, scratch.stream);
}

absl::Status Matmul::MultiplyOnHopper(const HopperMatmulTile& tile, const MatmulOperands& operands,
                                      const float* x_scales, cudaStream_t stream) const {
  if (hopper_multiprocessors_ == 0) {
    return absl::FailedPreconditionError("an algorithm of another device or path");
  }
  const HopperMatmulTensors tensors = {
      .x = operands.x,
      .x_stride = operands.x_stride,
      .weight = operands.weight,
      .x_scales = x_scales,
      .weight_scales = x_scales != nullptr ? operands.weight_scales : nullptr,
      .y = operands.out,
      .y_stride = operands.out_stride,
      .rows = operands.rows,
      .out_features = operands.n,
      .in_features = operands.k,
      .type = half_type_,
      .epilogue = operands.epilogue,
      .rope = operands.rope};
  return CudaStatus(HopperMatmul(tensors, tile, stream), "multiplying");
}

absl::Status Matmul::Quantized(const MatmulOperands& operands, cudaStream_t stream) const {
  if (operands.out_fp8.codes == nullptr) return absl::OkStatus();
  return CudaStatus(QuantizeRows(half_type_, operands.out, operands.out_stride, operands.rows,
                                 operands.n / 2, operands.out_fp8, stream),
                    "quantizing an activation");
}

absl::Status Matmul::Follow(const MatmulOperands& operands, cudaStream_t stream) const {
  switch (operands.epilogue) {
    case MatmulEpilogue::kNone:
      return absl::OkStatus();
    case MatmulEpilogue::kSwiGlu:
      if (operands.out_fp8.codes != nullptr) {
        return CudaStatus(SwiGluFp8(operands.out, operands.out_stride, operands.rows,
                                    operands.n / 2, operands.out_fp8, half_type_, stream),
                          "activation");
      }
      return CudaStatus(SwiGlu(operands.out, operands.out_stride, operands.rows, operands.n / 2,
                               operands.out, operands.out_stride, half_type_, stream),
                        "activation");
    case MatmulEpilogue::kQkNormRope:
      break;
  }
  const QkNormRopeOperands& rope = operands.rope;
  const QkNormRopeShape shape = {.rows = operands.rows,
                                 .num_heads = rope.num_heads,
                                 .num_kv_heads = rope.num_kv_heads,
                                 .head_dim = operands.head_dim,
                                 .type = half_type_};
  return CudaStatus(QkNormRope(shape, operands.out, operands.out_stride, rope.q_weight,
                               rope.k_weight, rope.eps, rope.positions, rope.table, stream),
                    "rotation");
}

}  // namespace quiver
