// The device's pooling and encoding against the CPU's. Skipped where there is no device.
#include "kernels/cuda/pool_encode.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/norm.h"
#include "tests/kernels/cuda/device_memory.h"

namespace quiver {
namespace {

using cpu::Encoding;
using cpu::PoolKind;
using cpu::VectorStatus;

constexpr float kEps = 1e-6f;
// Of F32 values of about 1: the two orders of summation.
constexpr double kF32Tolerance = 2e-6;
constexpr unsigned char kPoison = 0xa5;
constexpr Encoding kEncodings[] = {Encoding::kFloat32, Encoding::kFloat16, Encoding::kBfloat16,
                                   Encoding::kInt8, Encoding::kBinary};
constexpr PoolKind kKinds[] = {PoolKind::kLastToken, PoolKind::kMean, PoolKind::kCls};

using PoolEncodeTest = DeviceTest;

struct Pooled {
  std::vector<PoolResult> results;
  std::vector<unsigned char> bytes;
};

size_t AlignedBytes(const PoolItem& item) {
  return (cpu::EncodedBytes(item.encoding, item.dimensions) + 3) / 4 * 4;
}

// Lays the items' bytes out one after the other, each with a gap of four bytes behind it.
size_t SetOffsets(std::vector<PoolItem>* items) {
  size_t offset = 0;
  for (PoolItem& item : *items) {
    item.out_offset = static_cast<int64_t>(offset);
    offset += AlignedBytes(item) + 4;
  }
  return offset;
}

Pooled RunPoolEncode(PoolKind kind, const FloatMatrix& hidden, const FloatMatrix* weight,
                     std::vector<PoolItem>* items) {
  const size_t size = SetOffsets(items);
  const DeviceBuffer<PoolItem> device_items(*items);
  const DeviceBuffer<unsigned char> out(std::vector<unsigned char>(size, kPoison));
  PoolResult untouched;
  untouched.scale = -1;
  const DeviceBuffer<PoolResult> results(std::vector<PoolResult>(items->size(), untouched));
  PoolTensors tensors;
  tensors.hidden = hidden.device();
  tensors.hidden_stride = hidden.stride();
  tensors.dim = hidden.cols();
  if (weight != nullptr) tensors.norm_weight = weight->device();
  tensors.norm_eps = kEps;
  tensors.items = device_items.get();
  tensors.num_items = static_cast<int>(items->size());
  tensors.out = out.get();
  tensors.results = results.get();
  EXPECT_EQ(PoolEncode(kind, tensors, nullptr), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return {results.ToHost(), out.ToHost()};
}

// The vector that the CPU finishes, and its status. `hidden` is dense, with rows of `dim`; `weight`
// is empty for no norm.
VectorStatus Reference(PoolKind kind, const std::vector<float>& hidden, int64_t dim,
                       const std::vector<float>& weight, const PoolItem& item,
                       std::vector<float>* vector) {
  const auto first = hidden.begin() + item.first_row * dim;
  std::vector<float> rows(first, first + item.num_rows * dim);
  if (!weight.empty()) {
    cpu::RmsNorm(rows.data(), dim, item.num_rows, dim, weight.data(), kEps, rows.data(), dim,
                 nullptr);
  }
  vector->assign(static_cast<size_t>(item.dimensions), 0);
  cpu::PoolRows(kind, rows.data(), dim, item.num_rows, item.dimensions, vector->data());
  return cpu::FinishVector(vector->data(), item.dimensions, item.normalize);
}

double Element(Encoding encoding, const unsigned char* bytes, int64_t i, float scale) {
  uint16_t half;
  float value;
  switch (encoding) {
    case Encoding::kFloat32:
      std::memcpy(&value, bytes + 4 * i, sizeof(value));
      return value;
    case Encoding::kFloat16:
    case Encoding::kBfloat16:
      std::memcpy(&half, bytes + 2 * i, sizeof(half));
      return WidenHalf(half, encoding == Encoding::kFloat16 ? HalfType::kF16 : HalfType::kBf16);
    case Encoding::kInt8:
      return scale * static_cast<double>(static_cast<int8_t>(bytes[i]));
    case Encoding::kBinary:
      return bytes[i / 8] >> (7 - i % 8) & 1;
  }
  return 0;
}

double Tolerance(Encoding encoding, double value, float scale) {
  switch (encoding) {
    case Encoding::kFloat16:
      return RoundingOf(HalfType::kF16, value) + kF32Tolerance;
    case Encoding::kBfloat16:
      return RoundingOf(HalfType::kBf16, value) + kF32Tolerance;
    case Encoding::kInt8:
      return 0.5 * scale * (1 + 1e-5) + kF32Tolerance;
    default:
      return kF32Tolerance * std::max(1.0, std::abs(value));
  }
}

void ExpectRight(PoolKind kind, const FloatMatrix& hidden, const FloatMatrix* weight,
                 std::vector<PoolItem> items) {
  const Pooled got = RunPoolEncode(kind, hidden, weight, &items);
  const std::vector<float> hidden_floats = hidden.Floats();
  const std::vector<float> weight_floats =
      weight != nullptr ? weight->Floats() : std::vector<float>();
  std::vector<bool> is_written(got.bytes.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const PoolItem& item = items[i];
    SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << " item " << i
                                    << " encoding " << static_cast<int>(item.encoding) << " rows "
                                    << item.num_rows << " dimensions " << item.dimensions);
    std::vector<float> want;
    ASSERT_EQ(Reference(kind, hidden_floats, hidden.cols(), weight_floats, item, &want),
              VectorStatus::kOk);
    std::vector<unsigned char> want_bytes(cpu::EncodedBytes(item.encoding, item.dimensions));
    float want_scale;
    ASSERT_EQ(cpu::EncodeVector(item.encoding, want.data(), item.dimensions, want_bytes.data(),
                                &want_scale),
              VectorStatus::kOk);
    ASSERT_EQ(got.results[i].status, VectorStatus::kOk);
    ASSERT_NEAR(got.results[i].scale, want_scale, 1e-5 * want_scale);
    const unsigned char* bytes = got.bytes.data() + item.out_offset;
    for (int64_t e = 0; e < item.dimensions; ++e) {
      const double value = Element(item.encoding, bytes, e, want_scale);
      if (item.encoding == Encoding::kBinary) {
        if (std::abs(want[e]) > kF32Tolerance) {
          ASSERT_EQ(value, want[e] > 0 ? 1 : 0) << e;
        }
        continue;
      }
      ASSERT_NEAR(value, want[e], Tolerance(item.encoding, want[e], want_scale)) << e;
    }
    if (item.encoding == Encoding::kBinary && item.dimensions % 8 != 0) {
      ASSERT_EQ(bytes[want_bytes.size() - 1] & (0xff >> item.dimensions % 8), 0);
    }
    for (size_t b = 0; b < want_bytes.size(); ++b) is_written[item.out_offset + b] = true;
  }
  for (size_t b = 0; b < got.bytes.size(); ++b) {
    if (!is_written[b]) {
      ASSERT_EQ(got.bytes[b], kPoison) << "byte " << b;
    }
  }
}

TEST_F(PoolEncodeTest, EveryEncodingOfEveryPoolingIsTheCpus) {
  std::mt19937 rng(1);
  for (const int64_t dim : {8, 384, 1024, 2560, 8192}) {
    const auto hidden = FloatMatrix::Random(&rng, 200, dim, HalfType::kBf16);
    const auto weight = FloatMatrix::Random(&rng, 1, dim, HalfType::kBf16);
    for (const PoolKind kind : kKinds) {
      for (const bool has_norm : {false, true}) {
        std::vector<PoolItem> items;
        for (const Encoding encoding : kEncodings) {
          for (const auto& [first, rows] :
               std::vector<std::pair<int32_t, int32_t>>{{0, 1}, {1, 63}, {64, 136}, {199, 1}}) {
            for (const int64_t dimensions : {dim, dim / 2, dim - 3, int64_t{1}}) {
              items.push_back(
                  {first, rows, static_cast<int32_t>(dimensions), encoding, items.size() % 3 != 0});
            }
          }
        }
        ExpectRight(kind, hidden, has_norm ? &weight : nullptr, items);
      }
    }
  }
}

TEST_F(PoolEncodeTest, MeanOfALongSequenceIsTheCpus) {
  std::mt19937 rng(2);
  for (const int64_t dim : {384, 1024, 4096}) {
    const auto hidden = FloatMatrix::Random(&rng, 4000, dim, HalfType::kBf16);
    ExpectRight(PoolKind::kMean, hidden, nullptr,
                {{0, 4000, static_cast<int32_t>(dim), Encoding::kFloat32, true},
                 {17, 3001, static_cast<int32_t>(dim), Encoding::kFloat32, false}});
  }
}

TEST_F(PoolEncodeTest, VectorHasTheSameBitsWhateverSharesItsBatch) {
  std::mt19937 rng(3);
  for (const int64_t dim : {384, 2560}) {
    const auto hidden = FloatMatrix::Random(&rng, 500, dim, HalfType::kBf16);
    for (const PoolKind kind : kKinds) {
      const PoolItem item = {100, 77, static_cast<int32_t>(dim), Encoding::kFloat32, true};
      std::vector<PoolItem> alone = {item};
      std::vector<PoolItem> shared = {
          {0, 99, 32, Encoding::kInt8, true}, item, {177, 323, 64, Encoding::kFloat16, false}};
      const Pooled one = RunPoolEncode(kind, hidden, nullptr, &alone);
      const Pooled many = RunPoolEncode(kind, hidden, nullptr, &shared);
      EXPECT_EQ(std::memcmp(one.bytes.data(), many.bytes.data() + shared[1].out_offset,
                            AlignedBytes(item)),
                0);
    }
  }
}

TEST_F(PoolEncodeTest, BadVectorsAreReportedAndTheirNeighboursAreNot) {
  std::mt19937 rng(4);
  constexpr int64_t kDim = 384;
  auto hidden = FloatMatrix::Random(&rng, 6, kDim, HalfType::kBf16);
  hidden.Set(1, 7, std::numeric_limits<float>::quiet_NaN());
  hidden.Set(2, 383, std::numeric_limits<float>::infinity());
  for (int64_t c = 0; c < kDim; ++c) hidden.Set(3, c, 0);
  hidden.Set(4, 200, 1e6f);
  hidden.Upload();
  for (const PoolKind kind : kKinds) {
    for (const Encoding encoding : kEncodings) {
      std::vector<PoolItem> items;
      for (int32_t row = 0; row < 6; ++row) items.push_back({row, 1, kDim, encoding, false});
      const Pooled got = RunPoolEncode(kind, hidden, nullptr, &items);
      const VectorStatus large =
          encoding == Encoding::kFloat16 ? VectorStatus::kNotFinite : VectorStatus::kOk;
      const VectorStatus want[] = {VectorStatus::kOk,
                                   VectorStatus::kNotFinite,
                                   VectorStatus::kNotFinite,
                                   VectorStatus::kZeroNorm,
                                   large,
                                   VectorStatus::kOk};
      for (int row = 0; row < 6; ++row) {
        EXPECT_EQ(got.results[row].status, want[row])
            << "kind " << static_cast<int>(kind) << " encoding " << static_cast<int>(encoding)
            << " row " << row;
      }
    }
  }
  // What is cut off does not count.
  std::vector<PoolItem> cut = {{2, 1, 383, Encoding::kFloat32, true}};
  EXPECT_EQ(RunPoolEncode(PoolKind::kLastToken, hidden, nullptr, &cut).results[0].status,
            VectorStatus::kOk);
}

TEST_F(PoolEncodeTest, ItemWithoutRowsIsSkipped) {
  std::mt19937 rng(5);
  const auto hidden = FloatMatrix::Random(&rng, 2, 64, HalfType::kBf16);
  std::vector<PoolItem> items = {{0, 1, 64, Encoding::kFloat32, true},
                                 {0, 0, 64, Encoding::kFloat32, true}};
  const Pooled got = RunPoolEncode(PoolKind::kLastToken, hidden, nullptr, &items);
  EXPECT_EQ(got.results[1].scale, -1);
  EXPECT_EQ(got.bytes[items[1].out_offset], kPoison);
}

}  // namespace
}  // namespace quiver
