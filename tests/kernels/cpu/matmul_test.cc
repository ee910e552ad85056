#include "kernels/cpu/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_kernel.h"
#include "tests/kernels/cpu/guarded_matrix.h"

namespace quiver::cpu {
namespace {

constexpr StoredType kTypes[] = {StoredType::kF32, StoredType::kF16, StoredType::kBF16};

// A dense [n, k] matrix as a checkpoint stores it, at an odd address, and what its elements are.
struct StoredMatrix {
  StoredMatrix(std::mt19937* rng, StoredType stored_type, int64_t n, int64_t k)
      : type(stored_type), rows(n), bytes(1 + static_cast<size_t>(n * k) * StoredSize(type)) {
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < n * k; ++i) {
      const float value = normal(*rng);
      char* out = bytes.data() + 1 + static_cast<size_t>(i) * StoredSize(type);
      if (type == StoredType::kF32) {
        std::copy_n(reinterpret_cast<const char*>(&value), 4, out);
        values.push_back(value);
        continue;
      }
      const uint16_t half = type == StoredType::kF16 ? FloatToHalf(value) : FloatToBfloat16(value);
      std::copy_n(reinterpret_cast<const char*>(&half), 2, out);
      values.push_back(type == StoredType::kF16 ? HalfToFloat(half) : Bfloat16ToFloat(half));
    }
  }
  WeightRows view() const { return {type, bytes.data() + 1, rows}; }

  StoredType type;
  int64_t rows;
  std::vector<char> bytes;
  std::vector<float> values;
};

double Gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
double Silu(double x) { return x / (1 + std::exp(-x)); }

// Of a sum of k products of about 1, in units of the sum's likely size.
double Tolerance(int64_t k) { return 6e-6 * std::sqrt(static_cast<double>(k) + 1); }

double Dot(const float* x, const float* w, int64_t k) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += static_cast<double>(x[i]) * w[i];
  return sum;
}

struct Shape {
  int64_t m, n, k;
};

std::vector<Shape> Shapes(std::mt19937* rng) {
  std::vector<Shape> shapes = {{1, 1, 1},     {0, 20, 5},    {3, 0, 5},     {4, 20, 0},
                               {6, 16, 384},  {7, 33, 385},  {13, 64, 768}, {1, 100, 1000},
                               {12, 128, 31}, {200, 40, 50}, {340, 17, 9}};
  for (int i = 0; i < 12; ++i) {
    shapes.push_back({static_cast<int64_t>((*rng)() % 30), static_cast<int64_t>((*rng)() % 120),
                      static_cast<int64_t>((*rng)() % 900)});
  }
  return shapes;
}

TEST(MatmulTest, ProductsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  ThreadPool pool(2);
  for (const Shape& s : Shapes(&rng)) {
    for (const StoredType type : kTypes) {
      const StoredMatrix weights(&rng, type, s.n, s.k);
      const WeightRows view = weights.view();
      const PackedMatrix packed = PackedMatrix::Pack({&view, 1}, s.k, &pool);
      EXPECT_EQ(packed.type(), type);
      const GuardedMatrix x = GuardedMatrix::Random(&rng, s.m, s.k);
      const GuardedMatrix bias = GuardedMatrix::Random(&rng, 1, s.n);
      const GuardedMatrix residual = GuardedMatrix::Random(&rng, s.m, s.n, 5);
      GuardedMatrix plain(s.m, s.n);
      GuardedMatrix full(s.m, s.n);
      Matmul(x.data(), x.stride(), s.m, packed, {}, plain.data(), plain.stride(), &pool);
      Matmul(x.data(), x.stride(), s.m, packed,
             {.bias = bias.data(),
              .activation = Activation::kGelu,
              .residual = residual.data(),
              .residual_stride = residual.stride()},
             full.data(), full.stride(), &pool);
      plain.ExpectWrittenExactly();
      full.ExpectWrittenExactly();
      for (int64_t r = 0; r < s.m; ++r) {
        for (int64_t c = 0; c < s.n; ++c) {
          const double dot = Dot(x.row(r), weights.values.data() + c * s.k, s.k);
          ASSERT_NEAR(plain.at(r, c), dot, Tolerance(s.k)) << s.m << " " << s.n << " " << s.k;
          ASSERT_NEAR(full.at(r, c), Gelu(dot + bias.at(0, c)) + residual.at(r, c),
                      2 * Tolerance(s.k) + 2e-6);
        }
      }
    }
  }
}

TEST(MatmulTest, AResidualMayBeTheResultItself) {
  std::mt19937 rng(2);
  const StoredMatrix weights(&rng, StoredType::kF32, 70, 400);
  const WeightRows view = weights.view();
  const PackedMatrix packed = PackedMatrix::Pack({&view, 1}, 400, nullptr);
  const GuardedMatrix x = GuardedMatrix::Random(&rng, 9, 400);
  const GuardedMatrix residual = GuardedMatrix::Random(&rng, 9, 70);
  GuardedMatrix apart(9, 70);
  GuardedMatrix in_place = residual;
  Matmul(x.data(), x.stride(), 9, packed,
         {.residual = residual.data(), .residual_stride = residual.stride()}, apart.data(),
         apart.stride(), nullptr);
  Matmul(x.data(), x.stride(), 9, packed,
         {.residual = in_place.data(), .residual_stride = in_place.stride()}, in_place.data(),
         in_place.stride(), nullptr);
  EXPECT_EQ(apart.Bits(), in_place.Bits());
}

TEST(MatmulTest, PartsOfDifferentTypesStandOneUnderAnother) {
  std::mt19937 rng(3);
  const int64_t k = 45;
  const StoredMatrix first(&rng, StoredType::kF16, 19, k);
  const StoredMatrix second(&rng, StoredType::kBF16, 5, k);
  const WeightRows views[] = {first.view(), second.view()};
  const PackedMatrix packed = PackedMatrix::Pack(views, k, nullptr);
  EXPECT_EQ(packed.type(), StoredType::kF32);
  const GuardedMatrix x = GuardedMatrix::Random(&rng, 4, k);
  GuardedMatrix y(4, 24);
  Matmul(x.data(), x.stride(), 4, packed, {}, y.data(), y.stride(), nullptr);
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 24; ++c) {
      const float* w = c < 19 ? first.values.data() + c * k : second.values.data() + (c - 19) * k;
      ASSERT_NEAR(y.at(r, c), Dot(x.row(r), w, k), Tolerance(k));
    }
  }
}

TEST(MatmulTest, GatedProductsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(4);
  ThreadPool pool(2);
  for (const Shape& s : Shapes(&rng)) {
    for (const StoredType type : kTypes) {
      const StoredMatrix gate(&rng, type, s.n, s.k);
      const StoredMatrix up(&rng, type, s.n, s.k);
      const PackedMatrix packed = PackedMatrix::PackGated(gate.view(), up.view(), s.k, &pool);
      const GuardedMatrix x = GuardedMatrix::Random(&rng, s.m, s.k);
      GuardedMatrix y(s.m, s.n);
      GatedMatmul(x.data(), x.stride(), s.m, packed, Activation::kSilu, y.data(), y.stride(),
                  &pool);
      y.ExpectWrittenExactly();
      for (int64_t r = 0; r < s.m; ++r) {
        for (int64_t c = 0; c < s.n; ++c) {
          const double g = Dot(x.row(r), gate.values.data() + c * s.k, s.k);
          const double u = Dot(x.row(r), up.values.data() + c * s.k, s.k);
          ASSERT_NEAR(y.at(r, c), Silu(g) * u,
                      Tolerance(s.k) * (2 + std::fabs(g) + 2 * std::fabs(u)));
        }
      }
    }
  }
}

TEST(MatmulTest, ARowIsBitIdenticalWhateverSharesTheCallAndHoweverManyThreadsRun) {
  std::mt19937 rng(5);
  ThreadPool two(2);
  ThreadPool five(5);
  for (const StoredType type : kTypes) {
    const int64_t m = 190, n = 210, k = 800;
    const StoredMatrix weights(&rng, type, n, k);
    const WeightRows view = weights.view();
    const PackedMatrix packed = PackedMatrix::Pack({&view, 1}, k, &two);
    const GuardedMatrix x = GuardedMatrix::Random(&rng, m, k);
    const auto multiply = [&](int64_t row, int64_t rows, ThreadPool* pool) {
      GuardedMatrix y(rows, n);
      Matmul(x.row(row), x.stride(), rows, packed, {.activation = Activation::kSilu}, y.data(),
             y.stride(), pool);
      return y.Bits();
    };
    const auto all = multiply(0, m, nullptr);
    EXPECT_EQ(multiply(0, m, &two), all);
    EXPECT_EQ(multiply(0, m, &five), all);
    for (const int64_t rows : {1, 2, 3, 5, 6, 11, 14}) {
      for (int64_t row = 0; row + rows <= m; row += 61) {
        const auto some = multiply(row, rows, &two);
        for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(some[r], all[row + r]) << rows << " rows";
      }
    }
  }
}

// Random codes of a matrix, and what they stand for.
struct CodedMatrix {
  CodedMatrix(std::mt19937* rng, Coding coding, int64_t n, int64_t k, int64_t num_groups)
      : rows{.coding = coding, .num_groups = num_groups, .n = n} {
    std::uniform_real_distribution<float> scale(0.01f, 0.1f);
    for (int64_t i = 0; i < k; ++i) {
      input_groups.push_back(static_cast<uint16_t>((*rng)() % static_cast<uint32_t>(num_groups)));
    }
    for (int64_t i = 0; i < n * num_groups; ++i) {
      scales.push_back(scale(*rng));
      zero_points.push_back(static_cast<uint8_t>((*rng)() % 17));
    }
    for (int64_t i = 0; i < n * k; ++i) {
      uint8_t code = static_cast<uint8_t>((*rng)() % (coding == Coding::kInt4 ? 16 : 256));
      if (coding == Coding::kFp8 && (code & 0x7f) == 0x7f) code = 0x38;
      codes.push_back(code);
      const size_t group = static_cast<size_t>(i / k * num_groups + input_groups[i % k]);
      const float value =
          coding == Coding::kInt4
              ? static_cast<float>(code - zero_points[group])
              : std::ldexp((code & 0x80 ? -1.0f : 1.0f) *
                               static_cast<float>((code & 7) | (code & 0x78 ? 8 : 0)),
                           std::max((code >> 3) & 0xf, 1) - 10);
      values.push_back(value * scales[group]);
    }
    rows.codes = codes.data();
    rows.scales = scales.data();
    rows.zero_points = zero_points.data();
    rows.input_groups = input_groups.data();
  }
  CodedMatrix(const CodedMatrix&) = delete;

  CodedRows rows;
  std::vector<uint8_t> codes, zero_points;
  std::vector<float> scales, values;
  std::vector<uint16_t> input_groups;
};

TEST(MatmulTest, ProductsOfCodesHaveTheBitsOfThoseOfTheirFloats) {
  std::mt19937 rng(8);
  ThreadPool pool(2);
  for (const Shape& s : Shapes(&rng)) {
    for (const Coding coding : {Coding::kInt4, Coding::kFp8}) {
      const CodedMatrix coded(&rng, coding, s.n, s.k, 1 + s.k / 32);
      const WeightRows floats = {StoredType::kF32, coded.values.data(), s.n};
      const PackedMatrix packed = PackedMatrix::PackCoded({&coded.rows, 1}, s.k, &pool);
      EXPECT_EQ(packed.coding(), coding);
      const PackedMatrix plain = PackedMatrix::Pack({&floats, 1}, s.k, &pool);
      const GuardedMatrix x = GuardedMatrix::Random(&rng, s.m, s.k);
      GuardedMatrix y(s.m, s.n);
      GuardedMatrix expected(s.m, s.n);
      Matmul(x.data(), x.stride(), s.m, packed, {}, y.data(), y.stride(), &pool);
      Matmul(x.data(), x.stride(), s.m, plain, {}, expected.data(), expected.stride(), &pool);
      y.ExpectWrittenExactly();
      ASSERT_EQ(y.Bits(), expected.Bits()) << s.m << " " << s.n << " " << s.k;
    }
  }
}

TEST(MatmulTest, GatedProductsOfCodesHaveTheBitsOfThoseOfTheirFloats) {
  std::mt19937 rng(9);
  for (const Coding coding : {Coding::kInt4, Coding::kFp8}) {
    const int64_t m = 21, n = 75, k = 500;
    const CodedMatrix gate(&rng, coding, n, k, 1);
    const CodedMatrix up(&rng, coding, n, k, 1);
    const PackedMatrix packed = PackedMatrix::PackCodedGated(gate.rows, up.rows, k, nullptr);
    const PackedMatrix plain =
        PackedMatrix::PackGated({StoredType::kF32, gate.values.data(), n},
                                {StoredType::kF32, up.values.data(), n}, k, nullptr);
    EXPECT_LT(packed.size_bytes(), plain.size_bytes() / (coding == Coding::kInt4 ? 7 : 3));
    const GuardedMatrix x = GuardedMatrix::Random(&rng, m, k);
    GuardedMatrix y(m, n);
    GuardedMatrix expected(m, n);
    GatedMatmul(x.data(), x.stride(), m, packed, Activation::kSilu, y.data(), y.stride(), nullptr);
    GatedMatmul(x.data(), x.stride(), m, plain, Activation::kSilu, expected.data(),
                expected.stride(), nullptr);
    ASSERT_EQ(y.Bits(), expected.Bits());
  }
}

TEST(MatmulTest, EveryInstructionSetExpandsCodesToTheSameFloats) {
  std::mt19937 rng(10);
  for (const Coding coding : {Coding::kInt4, Coding::kFp8}) {
    const int64_t k = 77;
    const CodedMatrix coded(&rng, coding, kPanelWidth, k, 3);
    const PackedMatrix packed = PackedMatrix::PackCoded({&coded.rows, 1}, k, nullptr);
    const auto expand = [&](const MatmulKernel& kernel) {
      GuardedMatrix out(k, kPanelWidth, 0);
      kernel.expand({.coding = coding,
                     .codes = static_cast<const uint8_t*>(packed.panel(0)),
                     .scales = packed.panel_scales(0),
                     .zero_points = coding == Coding::kInt4 ? packed.panel_zero_points(0) : nullptr,
                     .input_groups = packed.input_groups(),
                     .count = k},
                    out.data());
      return out.Bits();
    };
    const auto generic = expand(kMatmulGeneric);
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t c = 0; c < kPanelWidth; ++c) {
        ASSERT_EQ(generic[i][c], std::bit_cast<uint32_t>(coded.values[c * k + i]));
      }
    }
    if (BestIsa() != Isa::kGeneric) {
      EXPECT_EQ(expand(kMatmulAvx2), generic);
    }
    if (BestIsa() == Isa::kAvx512) {
      EXPECT_EQ(expand(kMatmulAvx512), generic);
    }
  }
}

// Each block of k is one chain of fused multiply-adds; on the generic set the product is rounded.
TEST(MatmulTest, AnElementIsTheDocumentedChain) {
  std::mt19937 rng(6);
  const int64_t k = 2 * kMatmulBlockK + 100;
  const StoredMatrix weights(&rng, StoredType::kF32, 3, k);
  const WeightRows view = weights.view();
  const PackedMatrix packed = PackedMatrix::Pack({&view, 1}, k, nullptr);
  const GuardedMatrix x = GuardedMatrix::Random(&rng, 8, k);
  GuardedMatrix y(8, 3);
  Matmul(x.data(), x.stride(), 8, packed, {}, y.data(), y.stride(), nullptr);
  for (int64_t r = 0; r < 8; ++r) {
    for (int64_t c = 0; c < 3; ++c) {
      float total = 0;
      for (int64_t block = 0; block < k; block += kMatmulBlockK) {
        float sum = 0;
        for (int64_t i = block; i < std::min(k, block + kMatmulBlockK); ++i) {
          const float w = weights.values[c * k + i];
          const volatile float product = x.at(r, i) * w;
          sum = BestIsa() == Isa::kGeneric ? sum + product : std::fma(x.at(r, i), w, sum);
        }
        total = block == 0 ? sum : total + sum;
      }
      EXPECT_EQ(y.at(r, c), total);
    }
  }
}

TEST(MatmulTest, Avx512GivesTheBitsOfAvx2) {
  if (BestIsa() != Isa::kAvx512) GTEST_SKIP() << "needs AVX-512";
  std::mt19937 rng(7);
  for (const StoredType type : kTypes) {
    const int64_t rows = 31, k = 300;
    const StoredMatrix weights(&rng, type, 4 * kPanelWidth, k);
    const WeightRows view = weights.view();
    const PackedMatrix packed = PackedMatrix::Pack({&view, 1}, k, nullptr);
    const GuardedMatrix x = GuardedMatrix::Random(&rng, rows, k);
    const auto multiply = [&](const MatmulKernel& kernel) {
      GuardedMatrix sums(4 * rows, kPanelWidth, 0);
      kernel.multiply({.x = x.data(),
                       .x_stride = x.stride(),
                       .rows = rows,
                       .panels = packed.panel(0),
                       .panel_stride = k * kPanelWidth,
                       .type = type,
                       .num_panels = 4,
                       .count = k,
                       .sums = sums.data(),
                       .sums_stride = rows * kPanelWidth,
                       .first = true});
      GuardedMatrix y(rows, 13);
      kernel.finish({.sums = sums.data(),
                     .rows = rows,
                     .cols = 13,
                     .activation = Activation::kGelu,
                     .y = y.data(),
                     .y_stride = y.stride()});
      return std::pair(sums.Bits(), y.Bits());
    };
    EXPECT_EQ(multiply(kMatmulAvx512), multiply(kMatmulAvx2));
  }
}

}  // namespace
}  // namespace quiver::cpu
