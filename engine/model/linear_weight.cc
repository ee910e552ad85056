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

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/model/stored_floats.h"
#include "engine/model/weight_codes.h"

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

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

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
    ReadFloats(codes_, (begin + row) * k, k, values.data());
    scales[row] = QuantizeToFp8(values, codes + row * k);
  }
}

void LinearWeight::ReadInt4(int64_t begin, int64_t count, uint8_t* codes, uint8_t* zero_points,
                            float* scales) const {
  const int64_t k = inputs_;
  if (at_load_) {
    std::vector<float> values(static_cast<size_t>(k));
    for (int64_t row = 0; row < count; ++row) {
      ReadFloats(codes_, (begin + row) * k, k, values.data());
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
      ReadFloats(scales_,
                 layout_ == Int4Layout::kCompressedTensors ? output * groups + group
                                                           : group * outputs_ + output,
                 1, scales + row * groups + group);
    }
  }
}

absl::Status LinearWeight::CheckCodes(int64_t begin, int64_t count) const {
  const auto wrong = [this](absl::string_view must, int64_t element, absl::string_view is) {
    return absl::DataLossError(absl::StrCat(codes_.file, ": tensor \"",
                                            absl::Utf8SafeCEscape(name_), ".weight\" must ", must,
                                            ", element ", element, " is ", is));
  };
  if (at_load_) {
    std::vector<float> values(static_cast<size_t>(inputs_));
    for (int64_t output = begin; output < begin + count; ++output) {
      ReadFloats(codes_, output * inputs_, inputs_, values.data());
      const auto bad = std::find_if_not(values.begin(), values.end(),
                                        [](float value) { return std::isfinite(value); });
      if (bad != values.end()) {
        return wrong("be finite to be quantized", output * inputs_ + (bad - values.begin()),
                     absl::StrCat(*bad));
      }
    }
  } else if (format_ == WeightFormat::kFp8) {
    const std::byte* first = codes_.data + begin * inputs_;
    const std::byte* end = first + count * inputs_;
    const std::byte* bad = std::find_if(
        first, end, [](std::byte code) { return (code & std::byte{0x7f}) == std::byte{0x7f}; });
    if (bad != end) return wrong("have no NaN", bad - codes_.data, "one");
  }
  return absl::OkStatus();
}

void LinearWeight::Dequantize(int64_t begin, int64_t count, float* out) const {
  const int64_t k = inputs_;
  if (format_ == WeightFormat::kFloat) {
    return ReadFloats(codes_, begin * k, count * k, out);
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
