// The layouts of int4 on disk, K inputs, N outputs, g inputs of a group. Words are 32 bits; nibble
// i is bits 4i to 4i + 3.
//   AutoAWQ gemm        qweight [K, N/8], qzeros [K/g, N/8]: nibble i of word c is of output
//                       8c + {0, 2, 4, 6, 1, 3, 5, 7}[i]; scales [K/g, N].
//   GPTQ                qweight [K/8, N]: nibble i of word r is of input 8r + i;
//                       qzeros [ceil(K/g), N/8]: nibble i of word c is of output 8c + i, less one
//                       in the first format; scales [ceil(K/g), N]; g_idx [K], each input's group.
//   compressed-tensors  weight_packed [N, K/8]: nibble i of word c is of input 8c + i, biased by 8;
//                       weight_scale [N, K/g]; weight_zero_point [ceil(N/8), K/g]: nibble i of word
//                       r is of output 8r + i, biased alike; weight_g_idx [K]; weight_shape [2].
#include "engine/model/linear_weight.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/model/weight_codes.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {
namespace {

constexpr int64_t kNibbles = 8;
constexpr uint8_t kCodeMiddle = 8;
// AutoAWQ's order of outputs: nibble of output 8c + i.
constexpr std::array<int, kNibbles> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};

uint32_t Word(const TensorView& tensor, int64_t index) {
  uint32_t word;
  std::memcpy(&word, tensor.data + index * 4, sizeof(word));
  return word;
}

uint8_t Nibble(uint32_t word, int64_t i) { return (word >> (4 * i)) & 0xf; }

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

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

float FloatAt(const TensorView& tensor, int64_t index) {
  float value;
  const cpu::StoredType type = StoredTypeOf(tensor.dtype);
  cpu::WidenToFloat(type, tensor.data + index * static_cast<int64_t>(cpu::StoredSize(type)), 1,
                    &value);
  return value;
}

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
    TensorView tensor = Get(name, std::move(shape), IsFloat, "F32, F16 or BF16");
    const int64_t count = status_.ok() ? CountElements(tensor) : 0;
    for (int64_t i = 0; i < count; ++i) {
      if (const float value = FloatAt(tensor, i); !std::isfinite(value)) {
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
  linear_.codes_ = Get(".weight", {linear_.outputs_, linear_.inputs_}, IsFloat, "F32, F16 or BF16");
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
    cpu::WidenToFloat(StoredTypeOf(scales.dtype), scales.data, rows * columns,
                      linear_.block_scales_.data());
  }
  if (scheme.has_input_scale) {
    const TensorView scale = FloatsOf(".input_scale", {{1}, {}, {1, 1}});
    if (!status_.ok()) return;
    linear_.input_scale_ = FloatAt(scale, 0);
    if (!(*linear_.input_scale_ > 0)) {
      Lose(scale, ".input_scale", absl::StrCat("must be above 0, is ", *linear_.input_scale_));
    }
  }
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
             (stored != weights.tensors().end() && IsFloat(stored->second.dtype))) {
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

void LinearWeight::SetAtLoad(const LinearScheme& scheme) {
  at_load_ = true;
  format_ = scheme.format;
  group_inputs_ = std::min(scheme.group_size, inputs_);
  block_outputs_ = 1;
  block_inputs_ = inputs_;
}

void LinearWeight::ReadFloats(int64_t output, float* values) const {
  const cpu::StoredType type = StoredTypeOf(codes_.dtype);
  const auto size = static_cast<int64_t>(cpu::StoredSize(type));
  cpu::WidenToFloat(type, codes_.data + output * inputs_ * size, inputs_, values);
}

void LinearWeight::ReadFp8(int64_t begin, int64_t count, uint8_t* codes, float* scales) const {
  const int64_t k = inputs_;
  if (!at_load_) {
    std::memcpy(codes, codes_.data + begin * k, static_cast<size_t>(count * k));
    const int64_t blocks = CeilDivide(k, block_inputs_);
    for (int64_t row = 0; row < count; ++row) {
      std::copy_n(block_scales_.data() + (begin + row) / block_outputs_ * blocks, blocks,
                  scales + row * blocks);
    }
    return;
  }
  std::vector<float> values(static_cast<size_t>(k));
  for (int64_t row = 0; row < count; ++row) {
    ReadFloats(begin + row, values.data());
    scales[row] = QuantizeToFp8(values, codes + row * k);
  }
}

void LinearWeight::ReadInt4(int64_t begin, int64_t count, uint8_t* codes, uint8_t* zero_points,
                            float* scales) const {
  const int64_t k = inputs_;
  if (at_load_) {
    std::vector<float> values(static_cast<size_t>(k));
    for (int64_t row = 0; row < count; ++row) {
      ReadFloats(begin + row, values.data());
      for (int64_t group = 0; group < num_groups(); ++group) {
        const int64_t first = group * group_inputs_;
        const absl::Span<const float> part = absl::MakeConstSpan(values).subspan(
            static_cast<size_t>(first), static_cast<size_t>(group_inputs_));
        const int64_t at = row * num_groups() + group;
        scales[at] = QuantizeToInt4(part, codes + row * k + first, zero_points + at);
      }
    }
    return;
  }
  const int64_t groups = num_groups();
  // Column j's codes, from where its input has them.
  const auto input_of = [this](int64_t j) {
    return column_inputs_.empty() ? j : int64_t{column_inputs_[static_cast<size_t>(j)]};
  };
  switch (layout_) {
    case Int4Layout::kAwq:
      // Input by input, as the file has it: a line of the cache holds 128 outputs of one.
      for (int64_t j = 0; j < k; ++j) {
        for (int64_t row = 0; row < count; ++row) {
          const int64_t output = begin + row;
          codes[row * k + j] = Nibble(Word(codes_, (j * outputs_ + output) / kNibbles),
                                      kAwqNibble[static_cast<size_t>(output % kNibbles)]);
        }
      }
      break;
    case Int4Layout::kGptq:
      for (int64_t j = 0; j < k; ++j) {
        const int64_t input = input_of(j);
        for (int64_t row = 0; row < count; ++row) {
          codes[row * k + j] =
              Nibble(Word(codes_, input / kNibbles * outputs_ + begin + row), input % kNibbles);
        }
      }
      break;
    case Int4Layout::kCompressedTensors:
      for (int64_t row = 0; row < count; ++row) {
        for (int64_t j = 0; j < k; ++j) {
          const int64_t index = (begin + row) * k + input_of(j);
          codes[row * k + j] = Nibble(Word(codes_, index / kNibbles), index % kNibbles);
        }
      }
      break;
  }
  for (int64_t row = 0; row < count; ++row) {
    const int64_t output = begin + row;
    for (int64_t group = 0; group < groups; ++group) {
      uint8_t zero = kCodeMiddle;
      if (zero_points_.has_value() && layout_ == Int4Layout::kCompressedTensors) {
        zero = Nibble(Word(*zero_points_, output / kNibbles * groups + group), output % kNibbles);
      } else if (zero_points_.has_value()) {
        const int64_t nibble = layout_ == Int4Layout::kAwq
                                   ? kAwqNibble[static_cast<size_t>(output % kNibbles)]
                                   : output % kNibbles;
        zero = static_cast<uint8_t>(
            Nibble(Word(*zero_points_, (group * outputs_ + output) / kNibbles), nibble) +
            zero_point_offset_);
      }
      zero_points[row * groups + group] = zero;
      scales[row * groups + group] =
          FloatAt(scales_, layout_ == Int4Layout::kCompressedTensors ? output * groups + group
                                                                     : group * outputs_ + output);
    }
  }
}

absl::Status LinearWeight::CheckFinite() const {
  std::vector<float> values(static_cast<size_t>(inputs_));
  for (int64_t output = 0; output < outputs_; ++output) {
    ReadFloats(output, values.data());
    for (int64_t j = 0; j < inputs_; ++j) {
      if (std::isfinite(values[j])) continue;
      return absl::DataLossError(absl::StrCat(codes_.file, ": tensor \"",
                                              absl::Utf8SafeCEscape(name_),
                                              ".weight\" must be finite to be quantized, element ",
                                              output * inputs_ + j, " is ", values[j]));
    }
  }
  return absl::OkStatus();
}

absl::Status LinearWeight::CheckCodes() const {
  if (at_load_) return CheckFinite();
  if (format_ != WeightFormat::kFp8) return absl::OkStatus();
  const auto is_nan = [](std::byte code) { return (code & std::byte{0x7f}) == std::byte{0x7f}; };
  const std::byte* end = codes_.data + outputs_ * inputs_;
  const std::byte* bad = std::find_if(codes_.data, end, is_nan);
  if (bad == end) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(codes_.file, ": tensor \"", absl::Utf8SafeCEscape(name_),
                                          ".weight\" must have no NaN, element ", bad - codes_.data,
                                          " is one"));
}

void LinearWeight::Dequantize(int64_t begin, int64_t count, float* out) const {
  const int64_t k = inputs_;
  if (format_ == WeightFormat::kFloat) {
    const cpu::StoredType type = StoredTypeOf(codes_.dtype);
    cpu::WidenToFloat(type, codes_.data + begin * k * static_cast<int64_t>(cpu::StoredSize(type)),
                      count * k, out);
    return;
  }
  std::vector<uint8_t> codes(static_cast<size_t>(count * k));
  if (format_ == WeightFormat::kFp8) {
    const int64_t blocks = CeilDivide(k, block_inputs_);
    std::vector<float> scales(static_cast<size_t>(count * blocks));
    ReadFp8(begin, count, codes.data(), scales.data());
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t j = 0; j < k; ++j) {
        out[row * k + j] =
            Fp8ToFloat(codes[row * k + j]) * scales[row * blocks + j / block_inputs_];
      }
    }
    return;
  }
  const int64_t groups = num_groups();
  std::vector<uint8_t> zeros(static_cast<size_t>(count * groups));
  std::vector<float> scales(static_cast<size_t>(count * groups));
  ReadInt4(begin, count, codes.data(), zeros.data(), scales.data());
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t group = row * groups + j / group_inputs_;
      const int64_t input = column_inputs_.empty() ? j : column_inputs_[static_cast<size_t>(j)];
      out[row * k + input] = static_cast<float>(codes[row * k + j] - zeros[group]) * scales[group];
    }
  }
}

}  // namespace quiver
