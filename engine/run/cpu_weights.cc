#include "engine/run/cpu_weights.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {
namespace {

cpu::StoredType StoredTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return cpu::StoredType::kF16;
    case DType::kBF16:
      return cpu::StoredType::kBF16;
    default:
      return cpu::StoredType::kF32;
  }
}

}  // namespace

cpu::Activation CpuActivation(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return cpu::Activation::kSilu;
    case Activation::kGelu:
      return cpu::Activation::kGelu;
    case Activation::kGeluTanh:
      return cpu::Activation::kGeluTanh;
    case Activation::kRelu:
      return cpu::Activation::kRelu;
  }
  return cpu::Activation::kNone;
}

absl::StatusOr<TensorView> CpuWeightReader::Find(const std::string& name,
                                                 absl::Span<const int64_t> shape) {
  if (!status_.ok()) return status_;
  absl::StatusOr<TensorView> tensor = weights_.Get(absl::StrCat(prefix_, name), shape);
  if (tensor.ok() && tensor->dtype != DType::kF32 && tensor->dtype != DType::kF16 &&
      tensor->dtype != DType::kBF16) {
    tensor = absl::UnimplementedError(absl::StrCat(tensor->file, ": tensor \"", prefix_, name,
                                                   "\" must be F32, F16 or BF16 on a CPU, is ",
                                                   DTypeName(tensor->dtype)));
  }
  status_ = tensor.status();
  return tensor;
}

std::vector<float> CpuWeightReader::Vector(const std::string& name, int64_t n) {
  absl::StatusOr<TensorView> tensor = Find(name, {n});
  if (!tensor.ok()) return {};
  std::vector<float> values(static_cast<size_t>(n));
  cpu::WidenToFloat(StoredTypeOf(tensor->dtype), tensor->data, n, values.data());
  return values;
}

std::vector<float> CpuWeightReader::Vectors(const std::vector<std::string>& names,
                                            const std::vector<int64_t>& n) {
  std::vector<float> values;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::vector<float> part = Vector(names[i], n[i]);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

cpu::WeightRows CpuWeightReader::Rows(const Part& part, int64_t k, std::vector<TensorView>* read) {
  absl::StatusOr<TensorView> tensor = Find(part.name, {part.n, k});
  if (!tensor.ok()) return {};
  read->push_back(*tensor);
  return {StoredTypeOf(tensor->dtype), tensor->data, part.n};
}

cpu::PackedMatrix CpuWeightReader::Matrix(const std::vector<Part>& parts, int64_t k) {
  std::vector<TensorView> read;
  std::vector<cpu::WeightRows> rows;
  for (const Part& part : parts) rows.push_back(Rows(part, k, &read));
  if (!status_.ok()) return {};
  cpu::PackedMatrix matrix = cpu::PackedMatrix::Pack(rows, k, pool_);
  for (const TensorView& tensor : read) weights_.DropPages(tensor);
  return matrix;
}

cpu::PackedMatrix CpuWeightReader::GatedMatrix(const Part& gate, const Part& up, int64_t k) {
  std::vector<TensorView> read;
  const cpu::WeightRows gate_rows = Rows(gate, k, &read);
  const cpu::WeightRows up_rows = Rows(up, k, &read);
  if (!status_.ok()) return {};
  cpu::PackedMatrix matrix = cpu::PackedMatrix::PackGated(gate_rows, up_rows, k, pool_);
  for (const TensorView& tensor : read) weights_.DropPages(tensor);
  return matrix;
}

cpu::EmbeddingTable CpuWeightReader::Table(const std::string& name, int64_t rows, int64_t dim) {
  absl::StatusOr<TensorView> tensor = Find(name, {rows, dim});
  if (!tensor.ok()) return {};
  return {StoredTypeOf(tensor->dtype), tensor->data};
}

absl::StatusOr<std::string> FindPrefix(const Weights& weights, const std::string& prefix,
                                       const std::string& name) {
  if (weights.Contains(absl::StrCat(prefix, name))) return prefix;
  if (weights.Contains(name)) return std::string();
  return absl::NotFoundError(
      absl::StrCat("the checkpoint has neither tensor \"", prefix, name, "\" nor \"", name, "\""));
}

}  // namespace quiver
