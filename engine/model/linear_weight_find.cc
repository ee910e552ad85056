// Where a Linear's tensors are and what is wrong with them, layout by layout (see
// linear_weight.cc).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/model/linear_weight.h"
#include "engine/model/stored_floats.h"

namespace quiver {
namespace {

// Codes of a word.
constexpr int64_t kNibbles = 8;

int64_t CountElements(const TensorView& tensor) {
  return std::accumulate(tensor.shape.begin(), tensor.shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

// Looks tensors of one module up, and remembers the first error.
class LinearWeight::Finder {
 public:
  Finder(const Weights& weights, std::string base, LinearWeight* linear)
      : weights_(weights), base_(std::move(base)), linear_(*linear) {}

  bool Has(const char* name) const { return weights_.Contains(absl::StrCat(base_, name)); }
  const absl::Status& status() const { return status_; }

  // The tensor `name` of `shape`, whose type `allowed` must hold for.
  TensorView Get(const char* name, std::vector<int64_t> shape, bool (*allowed)(DType),
                 const char* types) {
    if (!status_.ok()) return {};
    absl::StatusOr<TensorView> tensor = weights_.Get(absl::StrCat(base_, name), shape);
    if (!tensor.ok()) {
      status_ = tensor.status();
      return {};
    }
    if (!allowed(tensor->dtype)) {
      Refuse(*tensor, name, absl::StrCat("must be ", types, ", is ", DTypeName(tensor->dtype)));
      return {};
    }
    linear_.tensors_.push_back(*tensor);
    return *std::move(tensor);
  }
  TensorView Words(const char* name, std::vector<int64_t> shape) {
    return Get(
        name, std::move(shape),
        [](DType dtype) { return dtype == DType::kI32 || dtype == DType::kU32; }, "I32");
  }
  TensorView Integers(const char* name, std::vector<int64_t> shape) {
    return Get(
        name, std::move(shape),
        [](DType dtype) { return dtype == DType::kI32 || dtype == DType::kI64; }, "I32 or I64");
  }
  // All elements must be finite.
  TensorView Floats(const char* name, std::vector<int64_t> shape) {
    TensorView tensor = Get(name, std::move(shape), IsStoredFloat, "F32, F16 or BF16");
    const int64_t count = status_.ok() ? CountElements(tensor) : 0;
    for (int64_t i = 0; i < count; ++i) {
      float value = 0;
      ReadFloats(tensor, i, 1, &value);
      if (!std::isfinite(value)) {
        Lose(tensor, name, absl::StrCat("must be finite, element ", i, " is ", value));
        break;
      }
    }
    return tensor;
  }
  // A tensor whose shape may be one of several with the same number of elements.
  TensorView FloatsOf(const char* name, std::vector<std::vector<int64_t>> shapes) {
    const auto it = weights_.tensors().find(absl::StrCat(base_, name));
    if (it != weights_.tensors().end()) {
      for (const std::vector<int64_t>& shape : shapes) {
        if (it->second.shape == shape) return Floats(name, shape);
      }
    }
    return Floats(name, shapes.front());
  }

  void FindFloat();
  void FindAwq(const LinearScheme& scheme);
  void FindGptq(const LinearScheme& scheme);
  void FindCompressedTensors(const LinearScheme& scheme);
  void FindFp8(const LinearScheme& scheme);

 private:
  void Refuse(const TensorView& tensor, const char* name, absl::string_view what) {
    Fail(absl::StatusCode::kInvalidArgument, tensor, name, what);
  }
  void Lose(const TensorView& tensor, const char* name, absl::string_view what) {
    Fail(absl::StatusCode::kDataLoss, tensor, name, what);
  }

  void Fail(absl::StatusCode code, const TensorView& tensor, const char* name,
            absl::string_view what) {
    if (!status_.ok()) return;
    status_ = absl::Status(
        code, absl::StrCat(tensor.file, ": tensor \"",
                           absl::Utf8SafeCEscape(absl::StrCat(base_, name)), "\" ", what));
  }

  void SetGroups(const LinearScheme& scheme);
  // The order of columns from each input's group.
  void SetColumns(const char* name);
  // Refuses a number of inputs or outputs that words of nibbles do not divide into.
  void MustDivide(const char* what, int64_t value, int64_t by);

  const Weights& weights_;
  const std::string base_;
  LinearWeight& linear_;
  absl::Status status_;
};

void LinearWeight::Finder::FindFloat() {
  linear_.format_ = WeightFormat::kFloat;
  linear_.codes_ =
      Get(".weight", {linear_.outputs_, linear_.inputs_}, IsStoredFloat, "F32, F16 or BF16");
}

void LinearWeight::Finder::MustDivide(const char* what, int64_t value, int64_t by) {
  if (value % by == 0 || !status_.ok()) return;
  status_ = absl::UnimplementedError(absl::StrCat("\"", base_, "\" has ", value, " ", what,
                                                  ", which must be a multiple of ", by,
                                                  " in its layout of int4"));
}

void LinearWeight::Finder::SetGroups(const LinearScheme& scheme) {
  linear_.format_ = WeightFormat::kInt4;
  linear_.layout_ = scheme.int4_layout;
  linear_.group_inputs_ =
      scheme.group_size == 0 ? linear_.inputs_ : std::min(scheme.group_size, linear_.inputs_);
}

void LinearWeight::Finder::FindAwq(const LinearScheme& scheme) {
  SetGroups(scheme);
  const int64_t n = linear_.outputs_;
  const int64_t k = linear_.inputs_;
  MustDivide("outputs", n, kNibbles);
  MustDivide("inputs", k, linear_.group_inputs_);
  linear_.codes_ = Words(".qweight", {k, n / kNibbles});
  linear_.zero_points_ = Words(".qzeros", {linear_.num_groups(), n / kNibbles});
  linear_.scales_ = Floats(".scales", {linear_.num_groups(), n});
}

void LinearWeight::Finder::FindGptq(const LinearScheme& scheme) {
  SetGroups(scheme);
  const int64_t n = linear_.outputs_;
  const int64_t k = linear_.inputs_;
  MustDivide("outputs", n, kNibbles);
  MustDivide("inputs", k, kNibbles);
  linear_.codes_ = Words(".qweight", {k / kNibbles, n});
  linear_.zero_points_ = Words(".qzeros", {linear_.num_groups(), n / kNibbles});
  linear_.zero_point_offset_ = scheme.zero_points_less_one ? 1 : 0;
  linear_.scales_ = Floats(".scales", {linear_.num_groups(), n});
  if (scheme.has_input_groups || Has(".g_idx")) SetColumns(".g_idx");
}

void LinearWeight::Finder::FindCompressedTensors(const LinearScheme& scheme) {
  SetGroups(scheme);
  const int64_t n = linear_.outputs_;
  const int64_t k = linear_.inputs_;
  MustDivide("inputs", k, kNibbles);
  linear_.codes_ = Words(".weight_packed", {n, k / kNibbles});
  linear_.scales_ = Floats(".weight_scale", {n, linear_.num_groups()});
  if (scheme.has_zero_points) {
    linear_.zero_points_ =
        Words(".weight_zero_point", {CeilDivide(n, kNibbles), linear_.num_groups()});
  }
  if (Has(".weight_shape")) {
    const TensorView shape = Integers(".weight_shape", {2});
    for (int i = 0; i < 2 && status_.ok(); ++i) {
      int64_t extent = 0;
      std::memcpy(&extent, shape.data + i * static_cast<int64_t>(DTypeSize(shape.dtype)),
                  DTypeSize(shape.dtype));
      if (extent != (i == 0 ? n : k)) {
        Refuse(shape, ".weight_shape",
               absl::StrCat("must be [", n, ", ", k, "], element ", i, " is ", extent));
      }
    }
  }
  if (scheme.has_input_groups || Has(".weight_g_idx")) SetColumns(".weight_g_idx");
}

void LinearWeight::Finder::SetColumns(const char* name) {
  const int64_t k = linear_.inputs_;
  const TensorView table = Integers(name, {k});
  if (!status_.ok()) return;
  const auto size = static_cast<int64_t>(DTypeSize(table.dtype));
  std::vector<int64_t> groups(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; ++i) {
    int32_t narrow = 0;
    if (size == 8) {
      std::memcpy(&groups[i], table.data + i * size, 8);
    } else {
      std::memcpy(&narrow, table.data + i * size, 4);
      groups[i] = narrow;
    }
    if (groups[i] < 0 || groups[i] >= linear_.num_groups()) {
      return Lose(table, name,
                  absl::StrCat("must have groups from 0 to ", linear_.num_groups() - 1,
                               ", element ", i, " is ", groups[i]));
    }
  }
  std::vector<int32_t> columns(static_cast<size_t>(k));
  std::iota(columns.begin(), columns.end(), 0);
  const bool sorted = std::is_sorted(groups.begin(), groups.end());
  if (!sorted) {
    std::stable_sort(columns.begin(), columns.end(),
                     [&](int32_t a, int32_t b) { return groups[a] < groups[b]; });
  }
  for (int64_t j = 0; j < k; ++j) {
    if (groups[columns[j]] != j / linear_.group_inputs_) {
      return Lose(table, name,
                  absl::StrCat("must put ", linear_.group_inputs_,
                               " inputs into each group, does not do so for group ",
                               j / linear_.group_inputs_));
    }
  }
  if (!sorted) linear_.column_inputs_ = std::move(columns);
}

void LinearWeight::Finder::FindFp8(const LinearScheme& scheme) {
  linear_.format_ = WeightFormat::kFp8;
  const int64_t n = linear_.outputs_;
  const int64_t k = linear_.inputs_;
  linear_.block_outputs_ = scheme.block_outputs == 0 ? n : scheme.block_outputs;
  linear_.block_inputs_ = scheme.block_inputs == 0 ? k : scheme.block_inputs;
  linear_.codes_ = Get(
      ".weight", {n, k}, [](DType dtype) { return dtype == DType::kF8E4M3; }, "F8_E4M3");
  const int64_t rows = CeilDivide(n, linear_.block_outputs_);
  const int64_t columns = CeilDivide(k, linear_.block_inputs_);
  const std::string scale_name = "." + scheme.scale_name;
  std::vector<std::vector<int64_t>> shapes = {{rows, columns}};
  if (columns == 1) shapes.push_back({rows});
  if (rows == 1 && columns == 1) shapes.push_back({});
  const TensorView scales = FloatsOf(scale_name.c_str(), shapes);
  if (status_.ok()) {
    linear_.block_scales_.resize(static_cast<size_t>(rows * columns));
    ReadFloats(scales, 0, rows * columns, linear_.block_scales_.data());
  }
  if (scheme.has_input_scale) {
    const TensorView scale = FloatsOf(".input_scale", {{1}, {}, {1, 1}});
    if (!status_.ok()) return;
    ReadFloats(scale, 0, 1, &linear_.input_scale_.emplace());
    if (!(*linear_.input_scale_ > 0)) {
      Lose(scale, ".input_scale", absl::StrCat("must be above 0, is ", *linear_.input_scale_));
    }
  }
}

void LinearWeight::SetAtLoad(const LinearScheme& scheme) {
  at_load_ = true;
  format_ = scheme.format;
  if (format_ == WeightFormat::kInt4) group_inputs_ = std::min(scheme.group_size, inputs_);
  block_outputs_ = 1;
  block_inputs_ = inputs_;
}

absl::StatusOr<LinearWeight> LinearWeight::Find(const Weights& weights, const std::string& prefix,
                                                const std::string& module, int64_t outputs,
                                                int64_t inputs, const LinearScheme& scheme) {
  LinearWeight linear;
  linear.outputs_ = outputs;
  linear.inputs_ = inputs;
  const std::string base = absl::StrCat(prefix, module);
  linear.name_ = base;
  Finder finder(weights, base, &linear);
  const auto stored = weights.tensors().find(absl::StrCat(base, ".weight"));
  if (scheme.at_load) {
    finder.FindFloat();
    linear.SetAtLoad(scheme);
  } else if (scheme.format == WeightFormat::kFloat ||
             (stored != weights.tensors().end() && IsStoredFloat(stored->second.dtype))) {
    finder.FindFloat();
  } else if (scheme.format == WeightFormat::kFp8) {
    finder.FindFp8(scheme);
  } else if (scheme.int4_layout == Int4Layout::kAwq) {
    finder.FindAwq(scheme);
  } else if (scheme.int4_layout == Int4Layout::kGptq) {
    finder.FindGptq(scheme);
  } else {
    finder.FindCompressedTensors(scheme);
  }
  if (!finder.status().ok()) return finder.status();
  return linear;
}

}  // namespace quiver
