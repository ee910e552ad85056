// NumPy's format 1.0: "\x93NUMPY", the version, the header's length in two little-endian bytes, and
// the header, a Python dictionary padded with spaces so that the data begins at a multiple of 64.
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/stored_type.h"
#include "tools/quiver/result_writer.h"

namespace quiver {
namespace {

// Room for any shape.
constexpr size_t kDataOffset = 128;

std::string Header(uint64_t rows, int columns) {
  std::string header("\x93NUMPY\x01\x00", 8);
  const size_t length = kDataOffset - header.size() - 2;
  header.push_back(static_cast<char>(length & 0xFF));
  header.push_back(static_cast<char>(length >> 8));
  absl::StrAppend(&header, "{'descr': '<f4', 'fortran_order': False, 'shape': (", rows, ", ",
                  columns, "), }");
  header.resize(kDataOffset - 1, ' ');
  header.push_back('\n');
  return header;
}

class NpyWriter : public EmbeddingWriter {
 public:
  NpyWriter(std::unique_ptr<OutputFile> file, OutputType type)
      : file_(std::move(file)), type_(type) {}

  absl::Status Begin(int dimensions) override {
    dimensions_ = dimensions;
    return file_->Write(Header(0, dimensions));
  }

  absl::Status Put(const InputItem& item, const absl::StatusOr<Embedding>& result) override {
    const std::vector<float> row =
        result.ok() ? DecodeFloats(type_, result->vector)
                    : std::vector<float>(static_cast<size_t>(dimensions_),
                                         std::numeric_limits<float>::quiet_NaN());
    if (row.size() != static_cast<size_t>(dimensions_)) {
      return absl::InternalError(absl::StrCat(item.place, ": the vector has ", row.size(),
                                              " dimensions, ", dimensions_, " were announced"));
    }
    ++rows_;
    return file_->Write({reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float)});
  }

  absl::Status Flush() override { return absl::OkStatus(); }

  absl::Status Close() override {
    if (absl::Status s = file_->WriteAtStart(Header(rows_, dimensions_)); !s.ok()) return s;
    return file_->Close();
  }

 private:
  const std::unique_ptr<OutputFile> file_;
  const OutputType type_;
  int dimensions_ = 0;
  uint64_t rows_ = 0;
};

}  // namespace

std::unique_ptr<EmbeddingWriter> NpyEmbeddings(std::unique_ptr<OutputFile> file, OutputType type) {
  return std::make_unique<NpyWriter>(std::move(file), type);
}

std::vector<float> DecodeFloats(OutputType type, const EncodedVector& vector) {
  const std::string& data = vector.data;
  std::vector<float> values;
  if (type == OutputType::kInt8) {
    values.reserve(data.size());
    for (const char byte : data) values.push_back(vector.scale * static_cast<int8_t>(byte));
    return values;
  }
  const cpu::StoredType stored = type == OutputType::kFloat16    ? cpu::StoredType::kF16
                                 : type == OutputType::kBfloat16 ? cpu::StoredType::kBF16
                                                                 : cpu::StoredType::kF32;
  values.resize(data.size() / cpu::StoredSize(stored));
  cpu::WidenToFloat(stored, data.data(), static_cast<int64_t>(values.size()), values.data());
  return values;
}

}  // namespace quiver
