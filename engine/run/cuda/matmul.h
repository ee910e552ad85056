// Matrix products on the device and what follows them: 16-bit operands, F32 sums. cuBLASLt's
// products or our own for few rows, and a kernel for what follows; or on Hopper both in one kernel:
// whichever was measured to be faster. Weights of int4 and FP8 are multiplied as they are where
// there are few rows, and else first expanded to 16 bits, to the same values; or, with FP8 inputs,
// x is multiplied in FP8, with a scale for each row, by an FP8 weight as it is and by an int4 one
// expanded to FP8.
#ifndef QUIVER_ENGINE_RUN_CUDA_MATMUL_H_
#define QUIVER_ENGINE_RUN_CUDA_MATMUL_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/run/cuda/expanded_weights.h"
#include "engine/run/cuda/matmul_cache.h"
#include "engine/run/cuda/weight_form.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/half_type.h"
#include "kernels/cuda/hopper_matmul.h"

namespace quiver {

// out[rows, n] = x[rows, k] * weight[n, k]^T, and `epilogue` of it in its place: of kSwiGlu the
// left n / 2 columns, where the rest of `out` is undefined then. Device pointers aligned to 16
// bytes; x and out have strides in elements, weight lies as `form` says.
struct MatmulOperands {
  const void* x = nullptr;
  int64_t x_stride = 0;
  // With codes: where x lies instead if Matmul::WantsFp8(), strides a multiple of 16 bytes. Else x
  // becomes FP8 on the way, in the scratch.
  Fp8Rows x_fp8 = {};
  const void* weight = nullptr;
  WeightForm form = {};
  const float* weight_scales = nullptr;  // where the form has row scales
  void* out = nullptr;
  int64_t out_stride = 0;
  // With codes, of kSwiGlu and a form with FP8 inputs: where the activation goes, in FP8. Rows may
  // lie in the right half of those of `out`.
  Fp8Rows out_fp8 = {};
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  MatmulEpilogue epilogue = MatmulEpilogue::kNone;
  // Of kQkNormRope: as the kernels take it, and the width of a head, 64 or 128.
  QkNormRopeOperands rope = {};
  int head_dim = 0;

  MatmulKey key() const {
    return {
        n,          k, x_stride, out_stride, MatmulRowBucket(rows), static_cast<int64_t>(epilogue),
        form.code()};
  }
};

// What a product may use beside its operands: not shared with work on another stream.
struct MatmulScratch {
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  void* few_rows_workspace = nullptr;  // FewRowsMatmul()'s
  cudaStream_t stream = nullptr;
  // For a weight of another form than it is multiplied in, aligned to 16 bytes: its
  // ExpandedBytes(), or as many rows of it at a time as fit, at least kInt4PanelRows. With FP8
  // inputs and no x_fp8, behind those also Fp8RowBytes() a row of x.
  void* expanded = nullptr;
  int64_t expanded_bytes = 0;
  // What lies there; null if it is not to be kept, as in a captured graph.
  ExpandedWeights* kept = nullptr;
};

// In place of one of cuBLASLt's: FewRowsMatmul(), Int4FewRows() or Fp8FewRows(), and HopperMatmul()
// with one of its tiles.
inline constexpr MatmulAlgorithm kFewRowsAlgorithm = {~uint64_t{0}};
MatmulAlgorithm HopperAlgorithm(const HopperMatmulTile& tile);
// Nothing if `algorithm` is not one of those.
std::optional<HopperMatmulTile> HopperTileOf(const MatmulAlgorithm& algorithm);

// In place of one of cuBLASLt's in FP8: in 16 bits.
inline constexpr MatmulAlgorithm kExpandAlgorithm = {~uint64_t{2}};

// What a row of x of `k` columns takes in FP8, with its scale.
constexpr int64_t Fp8RowBytes(int64_t k) { return k + 4; }

// To be used by one thread at a time.
class Matmul {
 public:
  // `force_portable` leaves HopperMatmul() out, wherever it would run.
  static absl::StatusOr<std::unique_ptr<Matmul>> Create(HalfType type, bool force_portable);
  ~Matmul();

  // The algorithm chosen for the key, else the library's first guess, which is then kept.
  absl::Status Run(const MatmulOperands& operands, const MatmulScratch& scratch);

  // Whether Run() will take x in FP8.
  bool WantsFp8(const MatmulOperands& operands, const MatmulScratch& scratch);

  // Whether the device multiplies in FP8 with scales for rows.
  bool takes_fp8() const { return hopper_multiprocessors_ > 0; }

  // Used from now on for products of this key.
  void Choose(const MatmulKey& key, const MatmulAlgorithm& algorithm) {
    chosen_[Hashable(key)] = algorithm;
  }

  // Ours that take these operands, and the library's guesses for exactly these, the likeliest
  // first. With `most` of 1 the library's alone.
  std::vector<MatmulAlgorithm> Candidates(const MatmulOperands& operands, int64_t workspace_bytes,
                                          int most);
  absl::Status RunWith(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                       const MatmulScratch& scratch);

 private:
  using HashableKey = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;
  static HashableKey Hashable(const MatmulKey& key) {
    return {key.n, key.k, key.x_stride, key.out_stride, key.rows, key.epilogue, key.form};
  }
  struct Layouts;

  Matmul() = default;

  // The product alone, by the library.
  absl::Status Multiply(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                        const MatmulScratch& scratch) const;
  absl::Status MultiplyFewRows(const MatmulOperands& operands, const MatmulScratch& scratch) const;
  // By a weight of int4 or FP8 as it is, x in 16 bits.
  absl::Status MultiplyFewRowsByCodes(const MatmulOperands& operands, cudaStream_t stream) const;
  // Where the weight's rows from `first` on are expanded on the stream, unless they are there.
  // `make` puts that on the stream.
  absl::StatusOr<std::byte*> PlaceOf(const MatmulOperands& operands, int64_t first, int64_t rows,
                                     int64_t bytes, const MatmulScratch& scratch,
                                     const std::function<cudaError_t(std::byte*)>& make) const;
  // By the weight's rows from `first` on, expanded to 16 bits.
  absl::StatusOr<MatmulOperands> Expand(const MatmulOperands& operands, int64_t first, int64_t rows,
                                        const MatmulScratch& scratch) const;
  // By as many expanded rows of the weight at a time as there is room for, then what follows.
  absl::Status MultiplyInParts(const MatmulOperands& operands, const MatmulScratch& scratch);
  // What has FP8 inputs, as the library has it; matmul_fp8.cc.
  std::vector<MatmulAlgorithm> Fp8Candidates(const MatmulOperands& operands,
                                             int64_t workspace_bytes, int most) const;
  // Whether `algorithm` is one of the library's that takes so many rows.
  bool TakesFp8(const MatmulAlgorithm& algorithm, const MatmulOperands& operands) const;
  // By the weight as a whole or, of an int4 one, by as many rows of it as there is room for; and
  // what follows.
  absl::Status MultiplyFp8(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                           const MatmulScratch& scratch) const;
  // By a weight in FP8, whatever the form says; and what follows if the algorithm is ours.
  absl::Status MultiplyFp8Rows(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                               const Fp8Rows& x, const MatmulScratch& scratch) const;
  // By the weight in 16 bits, expanded as a whole or in parts.
  absl::Status MultiplyExpanded(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                                const MatmulScratch& scratch);
  // Ours that take these; with `most` of 1 none.
  std::vector<MatmulAlgorithm> OwnCandidates(const MatmulOperands& operands, int most) const;
  bool TakesHopper(const MatmulOperands& operands) const;
  // Whether our product for few rows takes these.
  bool TakesFewRows(const MatmulOperands& operands) const;
  Int4Matrix Int4Of(const MatmulOperands& operands) const;
  // The product and what follows it, but for quantizing; with `x_scales` of FP8 operands.
  absl::Status MultiplyOnHopper(const HopperMatmulTile& tile, const MatmulOperands& operands,
                                const float* x_scales, cudaStream_t stream) const;
  // An activation that is in `out` to where it goes in FP8, if it does.
  absl::Status Quantized(const MatmulOperands& operands, cudaStream_t stream) const;
  // What follows a product that is in `out`.
  absl::Status Follow(const MatmulOperands& operands, cudaStream_t stream) const;

  HalfType half_type_ = HalfType::kBf16;
  cudaDataType_t type_ = CUDA_R_16BF;
  // Of a card on which HopperMatmul() is to run; 0 elsewhere.
  int hopper_multiprocessors_ = 0;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t description_ = nullptr;
  absl::flat_hash_map<HashableKey, MatmulAlgorithm> chosen_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_MATMUL_H_
