// Matrix products on the device and what follows them: 16-bit operands, F32 sums. cuBLASLt's
// products or our own for few rows, and a kernel for what follows; or on Hopper both in one kernel:
// whichever was measured to be faster. Weights of int4 are multiplied as they are where there are
// few rows, and else first expanded to 16 bits, to the same values. So are weights of FP8 where
// there are few rows; else x is multiplied in FP8, too, with a scale for each row.
#ifndef QUIVER_ENGINE_RUN_CUDA_MATMUL_H_
#define QUIVER_ENGINE_RUN_CUDA_MATMUL_H_

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/run/cuda/matmul_cache.h"
#include "engine/run/cuda/weight_form.h"
#include "kernels/cuda/half_type.h"
#include "kernels/cuda/hopper_matmul.h"

namespace quiver {

// out[rows, n] = x[rows, k] * weight[n, k]^T, and `epilogue` of it in its place: of kSwiGlu the
// left n / 2 columns, where the rest of `out` is undefined then. Device pointers aligned to 16
// bytes; x and out have strides in elements, weight lies as `form` says.
struct MatmulOperands {
  const void* x = nullptr;
  int64_t x_stride = 0;
  const void* weight = nullptr;
  WeightForm form = {};
  const float* weight_scales = nullptr;  // of kFp8
  void* out = nullptr;
  int64_t out_stride = 0;
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
  // For a weight that is not of 16 bits, aligned to 16 bytes: 2 n k bytes, or as many rows of it at
  // a time as fit, at least kInt4PanelRows.
  void* expanded = nullptr;
  int64_t expanded_bytes = 0;
};

// In place of one of cuBLASLt's: FewRowsMatmul(), Int4FewRows() or Fp8FewRows(), and HopperMatmul()
// with one of its tiles.
inline constexpr MatmulAlgorithm kFewRowsAlgorithm = {~uint64_t{0}};
MatmulAlgorithm HopperAlgorithm(const HopperMatmulTile& tile);
// Nothing if `algorithm` is not one of those.
std::optional<HopperMatmulTile> HopperTileOf(const MatmulAlgorithm& algorithm);

// In place of one of cuBLASLt's in FP8: by the weight in 16 bits.
inline constexpr MatmulAlgorithm kExpandFp8Algorithm = {~uint64_t{2}};

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
  // By a weight of int4 or FP8 as it is.
  absl::Status MultiplyFewRowsByCodes(const MatmulOperands& operands, cudaStream_t stream) const;
  // By the weight's rows from `first` on, expanded to 16 bits on the stream.
  absl::StatusOr<MatmulOperands> Expand(const MatmulOperands& operands, int64_t first, int64_t rows,
                                        const MatmulScratch& scratch) const;
  // By as many expanded rows of the weight at a time as there is room for, then what follows.
  absl::Status MultiplyInParts(const MatmulOperands& operands, const MatmulScratch& scratch);
  // FP8's candidates and product, as the library has them; matmul_fp8.cc.
  std::vector<MatmulAlgorithm> Fp8Candidates(const MatmulOperands& operands,
                                             int64_t workspace_bytes, int most) const;
  absl::Status MultiplyFp8(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                           const MatmulScratch& scratch) const;
  // By the weight in 16 bits, expanded as a whole or in parts.
  absl::Status MultiplyExpanded(const MatmulAlgorithm& algorithm, const MatmulOperands& operands,
                                const MatmulScratch& scratch);
  // Whether our product for few rows takes these.
  bool TakesFewRows(const MatmulOperands& operands) const;
  Int4Matrix Int4Of(const MatmulOperands& operands) const;
  // The product and what follows it.
  absl::Status MultiplyOnHopper(const HopperMatmulTile& tile, const MatmulOperands& operands,
                                cudaStream_t stream) const;
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
