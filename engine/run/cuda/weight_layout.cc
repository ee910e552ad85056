#include "engine/run/cuda/weight_layout.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/model/stored_floats.h"
#include "engine/run/cuda/activation_layout.h"

namespace quiver {
namespace {

// Random vectors that are no norm's: biases.
constexpr float kRandomBias = 0.02f;
constexpr float kRandomNorm = 0.1f;
// Tables' rows, as trained ones have them.
constexpr float kRandomTable = 0.05f;

cpu::StoredType HalfOf(ComputeType type) {
  return type == ComputeType::kBfloat16 ? cpu::StoredType::kBF16 : cpu::StoredType::kF16;
}

}  // namespace

WeightLayout::WeightLayout(const Weights* weights, std::string prefix, ComputeType type,
                           const QuantizationConfig* quantization, bool takes_fp8,
                           WeightForm random_form, ActivationType activation)
    : weights_(weights),
      prefix_(std::move(prefix)),
      matrix_type_(HalfOf(type)),
      quantization_(quantization),
      takes_fp8_(takes_fp8),
      random_form_(random_form),
      activation_(activation) {}

WeightPiece WeightLayout::Find(const std::string& name, std::vector<int64_t> shape) {
  WeightPiece piece;
  piece.count = 1;
  for (const int64_t size : shape) piece.count *= size;
  if (weights_ == nullptr || !status_.ok()) {
    piece.source_type = matrix_type_;
    return piece;
  }
  absl::StatusOr<TensorView> tensor = weights_->Get(absl::StrCat(prefix_, name), shape);
  if (!tensor.ok()) {
    status_ = tensor.status();
    return piece;
  }
  if (!IsStoredFloat(tensor->dtype)) {
    status_ = absl::UnimplementedError(absl::StrCat(tensor->file, ": tensor \"", prefix_, name,
                                                    "\" must be F32, F16 or BF16 on CUDA, is ",
                                                    DTypeName(tensor->dtype)));
  }
  piece.source_type = StoredTypeOf(tensor->dtype);
  piece.source = *std::move(tensor);
  return piece;
}

int64_t WeightLayout::Reserve(int64_t bytes) {
  const int64_t offset = bytes_;
  bytes_ = AlignUp(bytes_ + bytes, kArenaAlignment);
  return offset;
}

std::vector<std::shared_ptr<const LinearWeight>> WeightLayout::FindLinears(
    const std::vector<Part>& parts, int64_t k) {
  std::vector<std::shared_ptr<const LinearWeight>> linears;
  for (const Part& part : parts) {
    if (!status_.ok()) return {};
    const std::string module(absl::StripSuffix(part.name, ".weight"));
    absl::StatusOr<LinearWeight> linear = LinearWeight::Find(*weights_, prefix_, module, part.rows,
                                                             k, quantization_->SchemeOf(module));
    if (!linear.ok()) {
      status_ = linear.status();
      return {};
    }
    linears.push_back(std::make_shared<const LinearWeight>(*std::move(linear)));
  }
  return linears;
}

WeightForm WeightLayout::FormOf(
    const std::vector<Part>& parts, int64_t k,
    const std::vector<std::shared_ptr<const LinearWeight>>& linears) const {
  WeightForm form = weights_ == nullptr ? random_form_ : WeightForm();
  for (size_t i = 0; i < linears.size(); ++i) {
    const WeightForm mine = FormOf(*linears[i]);
    if (i > 0 && mine != form) return {};
    form = mine;
  }
  const int64_t multiple = form.kind == WeightKind::kFp8 ? kFp8Multiple : 8;
  if (form.kind != WeightKind::kHalf && k % multiple != 0) return {};
  for (const Part& part : parts) {
    if (part.rows % form.row_multiple() != 0) return {};
  }
  return form;
}

WeightForm WeightLayout::FormOf(const LinearWeight& linear) const {
  // One scale for each row; blocks of 128 columns are not multiplied as they are.
  if (linear.format() == WeightFormat::kFp8 && takes_fp8_ &&
      linear.block_inputs() >= linear.inputs()) {
    return {.kind = WeightKind::kFp8};
  }
  // Nor are columns in another order than x's.
  if (linear.format() != WeightFormat::kInt4 || !linear.column_inputs().empty()) return {};
  if (linear.num_groups() == 1) return {.kind = WeightKind::kInt4, .group = kInt4UnitColumns};
  if (!IsInt4Group(linear.group_inputs())) return {};
  return {.kind = WeightKind::kInt4, .group = static_cast<int>(linear.group_inputs())};
}

MatrixPlace WeightLayout::Matrix(const std::vector<Part>& parts, int64_t k) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  std::vector<std::shared_ptr<const LinearWeight>> linears;
  const bool is_quantized =
      weights_ != nullptr && quantization_ != nullptr && quantization_->method() != "none";
  if (is_quantized) {
    linears = FindLinears(parts, k);
    if (linears.empty()) return {};
  }
  MatrixPlace place;
  place.form = FormOf(parts, k, linears);
  const bool wants_fp8 =
      activation_ == ActivationType::kFp8 ||
      (activation_ == ActivationType::kAuto && place.form.kind == WeightKind::kFp8);
  place.form.fp8_inputs = wants_fp8 && takes_fp8_ && place.form.kind != WeightKind::kHalf &&
                          rows % kFp8Multiple == 0 && k % kFp8Multiple == 0 && k <= kMaxFp8Columns;
  place.offset = Reserve(place.form.Bytes(rows, k));
  const int64_t expanded = place.form.ExpandedBytes(rows, k);
  expanded_bytes_ = std::max(expanded_bytes_, expanded);
  if (place.form.kind != WeightKind::kFp8 || !place.form.fp8_inputs) {
    all_expanded_bytes_ += AlignUp(expanded, kArenaAlignment);
  }
  if (place.form.has_row_scales()) place.scales_offset = Reserve(rows * 4);
  if (place.form.fp8_inputs) fp8_columns_ = std::max(fp8_columns_, k);
  int64_t offset = place.offset;
  int64_t scales_offset = place.scales_offset;
  for (size_t i = 0; i < parts.size(); ++i) {
    WeightPiece piece;
    if (is_quantized) {
      piece.linear = linears[i];
      piece.count = parts[i].rows * k;
    } else {
      piece = Find(parts[i].name, {parts[i].rows, k});
    }
    piece.offset = offset;
    piece.scales_offset = scales_offset;
    piece.target_type = matrix_type_;
    piece.form = place.form;
    piece.k = k;
    // A product of inputs of variance 1 has variance 1.
    piece.random_range = std::sqrt(3.0f / static_cast<float>(k));
    offset += piece.form.Bytes(parts[i].rows, k);
    scales_offset += parts[i].rows * 4;
    pieces_.push_back(std::move(piece));
  }
  return place;
}

int64_t WeightLayout::Vector(const std::vector<Part>& parts, bool is_norm) {
  int64_t count = 0;
  for (const Part& part : parts) count += part.rows;
  const int64_t begin = Reserve(count * 4);
  int64_t offset = begin;
  for (const Part& part : parts) {
    WeightPiece piece = Find(part.name, {part.rows});
    piece.offset = offset;
    piece.target_type = cpu::StoredType::kF32;
    piece.random_mean = is_norm ? 1.0f : 0.0f;
    piece.random_range = is_norm ? kRandomNorm : kRandomBias;
    offset += piece.count * 4;
    pieces_.push_back(std::move(piece));
  }
  return begin;
}

int64_t WeightLayout::Vector(const std::string& name, int64_t n, bool is_norm) {
  return Vector({{name, n}}, is_norm);
}

TablePlace WeightLayout::Table(const std::string& name, int64_t rows, int64_t dim) {
  WeightPiece piece = Find(name, {rows, dim});
  piece.target_type = piece.source_type;
  piece.random_range = kRandomTable;
  piece.offset = Reserve(piece.count * static_cast<int64_t>(cpu::StoredSize(piece.target_type)));
  const TablePlace place = {piece.offset, piece.target_type};
  pieces_.push_back(std::move(piece));
  return place;
}

}  // namespace quiver
