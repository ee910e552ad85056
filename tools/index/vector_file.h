// Vectors in a file, as `quiver index` and other programs write them, mapped into memory.
#ifndef QUIVER_TOOLS_INDEX_VECTOR_FILE_H_
#define QUIVER_TOOLS_INDEX_VECTOR_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quiver::index {

enum class VectorElement { kFloat32, kFloat16, kInt8 };

// What a file of vectors is, by the end of its name; all numbers are little-endian:
//   .npy                     NumPy's format 1.0 to 3.0: [rows, dimensions] of float32, float16 or
//                            int8 in C order
//   .fbin, .f16bin, .i8bin   uint32 rows, uint32 dimensions, then the rows
//   .fvecs                   rows of float32, each with its int32 dimensions before it
// Immutable; any number of threads may read it.
class VectorFile {
 public:
  // Errors name the file: INVALID_ARGUMENT of a name with another end, DATA_LOSS of a header that
  // is not of its format or that the file's size does not bear out. A file without rows is opened.
  static absl::StatusOr<std::unique_ptr<VectorFile>> Open(const std::string& path);
  ~VectorFile();
  VectorFile(const VectorFile&) = delete;
  VectorFile& operator=(const VectorFile&) = delete;

  const std::string& path() const { return path_; }
  uint64_t rows() const { return rows_; }
  int dimensions() const { return dimensions_; }
  VectorElement element() const { return element_; }

  // Copies rows [first, first + count) to `out` [count, dimensions], int8 without any scale.
  // DATA_LOSS names a row whose dimensions are not the first one's (.fvecs).
  absl::Status Read(uint64_t first, uint64_t count, float* out) const;

 private:
  VectorFile(std::string path, const char* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  // Sets what follows from the file's header.
  absl::Status ReadHeader();
  absl::Status ReadNpyHeader();
  absl::Status ReadBinHeader();
  absl::Status ReadFvecsHeader();
  absl::Status Broken(const std::string& what) const;

  const std::string path_;
  const char* const data_;
  const size_t size_;
  uint64_t rows_ = 0;
  int dimensions_ = 0;
  VectorElement element_ = VectorElement::kFloat32;
  // Of the first row's elements, and from one row's to the next one's.
  size_t begin_ = 0;
  size_t stride_ = 0;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_VECTOR_FILE_H_
