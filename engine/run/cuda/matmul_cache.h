// Measured algorithms of matrix products, kept in a file between starts. Host only.
#ifndef QUIVER_ENGINE_RUN_CUDA_MATMUL_CACHE_H_
#define QUIVER_ENGINE_RUN_CUDA_MATMUL_CACHE_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "absl/status/status.h"

namespace quiver {

// out[rows, n] = x[rows, k] * weight[n, k]^T, with the strides of x and out in elements, and what
// follows it, a MatmulEpilogue; algorithms are chosen for up to `rows` rows.
struct MatmulKey {
  int64_t n = 0;
  int64_t k = 0;
  int64_t x_stride = 0;
  int64_t out_stride = 0;
  int64_t rows = 0;
  int64_t epilogue = 0;
  int64_t form = 0;  // WeightForm::code() of the weight

  friend auto operator<=>(const MatmulKey&, const MatmulKey&) = default;
};

// cuBLASLt's opaque description, which may be stored for the same version of the library, or one of
// Matmul's own.
using MatmulAlgorithm = std::array<uint64_t, 8>;

// The number of rows that stands for `rows` in a key: the least of a fixed ladder that is not less.
int64_t MatmulRowBucket(int64_t rows);
// The next rung above `bucket`.
int64_t NextMatmulRowBucket(int64_t bucket);

class MatmulCache {
 public:
  // `identity` names what the algorithms were measured on: device, driver, library, element type.
  // A file of another identity, or one that is damaged, counts as empty.
  static MatmulCache Load(const std::string& path, const std::string& identity);

  std::optional<MatmulAlgorithm> Find(const MatmulKey& key) const;
  void Put(const MatmulKey& key, const MatmulAlgorithm& algorithm);
  // Whether anything was put since it was loaded.
  bool changed() const { return changed_; }

  // Replaces the file as a whole, so that a reader never sees half of it; makes its folder.
  absl::Status Save(const std::string& path) const;

 private:
  std::string identity_;
  std::map<MatmulKey, MatmulAlgorithm> algorithms_;
  bool changed_ = false;
};

// The file in `cache_dir` for `identity`; with an empty `cache_dir` in quiver/ of XDG_CACHE_HOME or
// of .cache in HOME; empty if none of them is set.
std::string MatmulCachePath(const std::string& cache_dir, const std::string& identity);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_MATMUL_CACHE_H_
