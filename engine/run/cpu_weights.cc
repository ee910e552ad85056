#include "engine/run/cpu_weights.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/model/stored_floats.h"
#include "engine/run/cpu_linear_rows.h"

namespace quiver {

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
  if (tensor.ok() && !IsStoredFloat(tensor->dtype)) {
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
  ReadFloats(*tensor, 0, n, values.data());
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

std::vector<LinearWeight> CpuWeightReader::FindLinears(const std::vector<Part>& parts, int64_t k) {
  std::vector<LinearWeight> linears;
  for (const Part& part : parts) {
    if (!status_.ok()) return {};
    const std::string module(absl::StripSuffix(part.name, ".weight"));
    absl::StatusOr<LinearWeight> linear =
        LinearWeight::Find(weights_, prefix_, module, part.n, k, quantization_.SchemeOf(module));
    status_ = linear.status();
    if (linear.ok()) linears.push_back(*std::move(linear));
  }
  return linears;
}

void CpuWeightReader::DropPages(const std::vector<LinearWeight>& linears) {
  for (const LinearWeight& linear : linears) {
    for (const TensorView& tensor : linear.tensors()) weights_.DropPages(tensor);
  }
}

cpu::PackedMatrix CpuWeightReader::Matrix(const std::vector<Part>& parts, int64_t k) {
  const std::vector<LinearWeight> linears = FindLinears(parts, k);
  if (!status_.ok()) return {};
  absl::StatusOr<CpuLinearRows> rows = CpuLinearRows::Of(linears, pool_);
  status_ = rows.status();
  if (!rows.ok()) return {};
  cpu::PackedMatrix matrix = rows->coded().empty()
                                 ? cpu::PackedMatrix::Pack(rows->floats(), k, pool_)
                                 : cpu::PackedMatrix::PackCoded(rows->coded(), k, pool_);
  DropPages(linears);
  return matrix;
}

cpu::PackedMatrix CpuWeightReader::GatedMatrix(const Part& gate, const Part& up, int64_t k) {
  const std::vector<LinearWeight> linears = FindLinears({gate, up}, k);
  if (!status_.ok()) return {};
  absl::StatusOr<CpuLinearRows> rows = CpuLinearRows::Of(linears, pool_);
  status_ = rows.status();
  if (!rows.ok()) return {};
  cpu::PackedMatrix matrix =
      rows->coded().empty()
          ? cpu::PackedMatrix::PackGated(rows->floats()[0], rows->floats()[1], k, pool_)
          : cpu::PackedMatrix::PackCodedGated(rows->coded()[0], rows->coded()[1], k, pool_);
  DropPages(linears);
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
