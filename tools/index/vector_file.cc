#include "tools/index/vector_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/cpu/stored_type.h"

namespace quiver::index {
namespace {

constexpr int kMaxDimensions = 1 << 16;

size_t ElementSize(VectorElement element) {
  switch (element) {
    case VectorElement::kFloat32:
      return 4;
    case VectorElement::kFloat16:
      return 2;
    case VectorElement::kInt8:
      return 1;
  }
  return 0;
}

uint32_t Load32(const char* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// What stands behind 'NAME': in NumPy's header, up to the comma or parenthesis that ends it.
absl::string_view NpyField(absl::string_view header, absl::string_view name) {
  const size_t at = header.find(absl::StrCat("'", name, "':"));
  if (at == absl::string_view::npos) return "";
  absl::string_view value = header.substr(at + name.size() + 3);
  value = absl::StripLeadingAsciiWhitespace(value);
  const bool tuple = absl::ConsumePrefix(&value, "(");
  return value.substr(0, value.find_first_of(tuple ? ")" : ",}"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<VectorFile>> VectorFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, path);
  struct stat about;
  const bool known = fstat(fd, &about) == 0;
  if (!known || !S_ISREG(about.st_mode)) {
    close(fd);
    return absl::FailedPreconditionError(absl::StrCat(path, ": must be a regular file"));
  }
  const auto size = static_cast<size_t>(about.st_size);
  void* const data = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  const int mapping_error = errno;
  close(fd);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(mapping_error, path);
  std::unique_ptr<VectorFile> file(new VectorFile(path, static_cast<const char*>(data), size));
  if (absl::Status status = file->ReadHeader(); !status.ok()) return status;
  return file;
}

VectorFile::~VectorFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

absl::Status VectorFile::Broken(const std::string& what) const {
  return absl::DataLossError(absl::StrCat(path_, ": ", what));
}

absl::Status VectorFile::ReadHeader() {
  absl::Status status;
  if (absl::EndsWith(path_, ".npy")) {
    status = ReadNpyHeader();
  } else if (absl::EndsWith(path_, ".fbin")) {
    status = ReadBinHeader();
  } else if (absl::EndsWith(path_, ".f16bin")) {
    element_ = VectorElement::kFloat16;
    status = ReadBinHeader();
  } else if (absl::EndsWith(path_, ".i8bin")) {
    element_ = VectorElement::kInt8;
    status = ReadBinHeader();
  } else if (absl::EndsWith(path_, ".fvecs")) {
    return ReadFvecsHeader();
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": a file of vectors is called .npy, .fbin, .f16bin, .i8bin or .fvecs"));
  }
  if (!status.ok()) return status;
  if (dimensions_ < 1 || dimensions_ > kMaxDimensions) {
    return Broken(
        absl::StrCat("dimensions must be from 1 to ", kMaxDimensions, ", are ", dimensions_));
  }
  stride_ = static_cast<size_t>(dimensions_) * ElementSize(element_);
  const size_t bytes = size_ - begin_;
  if (bytes % stride_ != 0 || bytes / stride_ != rows_) {
    return Broken(absl::StrCat("its header says ", rows_, " rows of ", dimensions_,
                               " dimensions, which take ", stride_, " bytes each, but ", bytes,
                               " bytes follow"));
  }
  return absl::OkStatus();
}

absl::Status VectorFile::ReadNpyHeader() {
  const absl::string_view bytes(data_, size_);
  if (!absl::StartsWith(bytes, "\x93NUMPY") || size_ < 12) return Broken("is no NumPy array");
  const bool short_length = bytes[6] == 1;
  const size_t prefix = short_length ? 10 : 12;
  const size_t length = short_length ? Load32(data_ + 8) & 0xFFFF : Load32(data_ + 8);
  if (length > size_ - prefix) return Broken("ends within its header");
  begin_ = prefix + length;
  const absl::string_view header = bytes.substr(prefix, length);

  const absl::string_view type = NpyField(header, "descr");
  if (type == "'<f4'") {
    element_ = VectorElement::kFloat32;
  } else if (type == "'<f2'") {
    element_ = VectorElement::kFloat16;
  } else if (type == "'|i1'") {
    element_ = VectorElement::kInt8;
  } else {
    return Broken(absl::StrCat("its elements must be float32, float16 or int8, are ", type));
  }
  if (NpyField(header, "fortran_order") != "False") return Broken("must be in C order");
  const absl::string_view shape = NpyField(header, "shape");
  const std::pair<absl::string_view, absl::string_view> sides = absl::StrSplit(shape, ',');
  if (!absl::SimpleAtoi(sides.first, &rows_) || !absl::SimpleAtoi(sides.second, &dimensions_)) {
    return Broken(absl::StrCat("its shape must be (rows, dimensions), is (", shape, ")"));
  }
  return absl::OkStatus();
}

absl::Status VectorFile::ReadBinHeader() {
  begin_ = 8;
  if (size_ < begin_) return Broken("ends within its header");
  rows_ = Load32(data_);
  dimensions_ = static_cast<int>(Load32(data_ + 4));
  return absl::OkStatus();
}

absl::Status VectorFile::ReadFvecsHeader() {
  if (size_ == 0) return absl::OkStatus();
  begin_ = 4;
  if (size_ < begin_) return Broken("ends within its first row");
  dimensions_ = static_cast<int>(Load32(data_));
  if (dimensions_ < 1 || dimensions_ > kMaxDimensions) {
    return Broken(
        absl::StrCat("its first row has ", dimensions_, " dimensions, not 1 to ", kMaxDimensions));
  }
  stride_ = 4 + 4 * static_cast<size_t>(dimensions_);
  if (size_ % stride_ != 0) {
    return Broken(absl::StrCat("its ", size_, " bytes are no whole number of rows of ", dimensions_,
                               " dimensions, which take ", stride_, " bytes each"));
  }
  rows_ = size_ / stride_;
  return absl::OkStatus();
}

absl::Status VectorFile::Read(uint64_t first, uint64_t count, float* out) const {
  const size_t row_bytes = static_cast<size_t>(dimensions_) * ElementSize(element_);
  for (uint64_t row = first; row < first + count; ++row, out += dimensions_) {
    const char* const values = data_ + begin_ + row * stride_;
    // Only .fvecs has something between two rows.
    if (stride_ != row_bytes) {
      const auto own = static_cast<int>(Load32(values - 4));
      if (own != dimensions_) {
        return Broken(absl::StrCat("row ", row, " has ", own, " dimensions, the first one has ",
                                   dimensions_));
      }
    }
    switch (element_) {
      case VectorElement::kFloat32:
        std::memcpy(out, values, row_bytes);
        break;
      case VectorElement::kFloat16:
        cpu::WidenToFloat(cpu::StoredType::kF16, values, dimensions_, out);
        break;
      case VectorElement::kInt8:
        for (int i = 0; i < dimensions_; ++i) {
          out[i] = static_cast<float>(static_cast<signed char>(values[i]));
        }
        break;
    }
  }
  return absl::OkStatus();
}

}  // namespace quiver::index
