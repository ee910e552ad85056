// The device's product on Hopper, and what follows it, against plain arithmetic, by every tile.
// Skipped where there is no such device, but for the choice of tiles.
#include "kernels/cuda/hopper_matmul.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <tuple>
#include <vector>

#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/device_memory.h"
#include "tests/kernels/cuda/fp8_value.h"

namespace quiver {
namespace {

// For each summed column, of factors of about 1: F32 accumulation in another order.
constexpr double kF32Tolerance = 5e-7;
// Of the F32 arithmetic after the sums, with its approximate exponential and reciprocal.
constexpr double kEpilogueTolerance = 4e-6;
constexpr int kHeadDim = kHopperMatmulHeadDim;
constexpr HalfType kTypes[] = {HalfType::kBf16, HalfType::kF16};

class HopperMatmulTest : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    bool is_supported = false;
    ASSERT_CUDA(HopperMatmulIsSupported(&is_supported));
    if (!is_supported) GTEST_SKIP() << "for Hopper only";
  }

  static HopperMatmulTensors TensorsOf(const HalfMatrix& x, const HalfMatrix& weight,
                                       const HalfMatrix& y, MatmulEpilogue epilogue) {
    HopperMatmulTensors tensors;
    tensors.x = x.device();
    tensors.x_stride = x.stride();
    tensors.weight = weight.device();
    tensors.y = y.device();
    tensors.y_stride = y.stride();
    tensors.rows = y.rows();
    tensors.out_features = weight.rows();
    tensors.in_features = weight.cols();
    tensors.type = x.type();
    tensors.epilogue = epilogue;
    return tensors;
  }

  static HalfMatrix RandomWeight(std::mt19937* rng, int64_t n, int64_t k, HalfType type) {
    return HalfMatrix::Random(rng, n, k, type, 0);
  }
};

// For the first `rows` rows of x.
std::vector<double> PlainProduct(const HalfMatrix& x, const HalfMatrix& weight, int64_t rows) {
  const std::vector<float> x_floats = x.Floats();
  const std::vector<float> weight_floats = weight.Floats();
  const int64_t k = x.cols();
  std::vector<double> product;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < weight.rows(); ++n) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += static_cast<double>(x_floats[r * k + i]) * weight_floats[n * k + i];
      }
      product.push_back(sum);
    }
  }
  return product;
}

TEST_F(HopperMatmulTest, ProductsAreThoseOfPlainArithmetic) {
  std::mt19937 rng(1);
  for (const HalfType type : kTypes) {
    // Whole and broken tiles and chunks; fewer chunks than the ring has stages, and more.
    for (const auto& [rows, n, k] :
         std::vector<std::tuple<int64_t, int64_t, int64_t>>{{1, 8, 8},
                                                            {128, 128, 64},
                                                            {129, 136, 72},
                                                            {127, 520, 328},
                                                            {256, 256, 1000},
                                                            {300, 648, 640}}) {
      const HalfMatrix x = HalfMatrix::Random(&rng, rows, k, type);
      const HalfMatrix weight = RandomWeight(&rng, n, k, type);
      const std::vector<double> want = PlainProduct(x, weight, rows);
      for (const HopperMatmulTile& tile : HopperMatmulTiles(MatmulEpilogue::kNone)) {
        HalfMatrix y(rows, n, type);
        ASSERT_CUDA(HopperMatmul(TensorsOf(x, weight, y, MatmulEpilogue::kNone), tile, nullptr));
        y.Download();
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < n; ++c) {
            const double sum = want[static_cast<size_t>(r * n + c)];
            ASSERT_NEAR(y.at(r, c), sum,
                        RoundingOf(type, sum) + kF32Tolerance * static_cast<double>(k))
                << rows << " x " << n << " x " << k << ", tile " << tile.columns << " x "
                << tile.cluster_blocks << ", row " << r << " column " << c;
          }
        }
      }
    }
  }
}

TEST_F(HopperMatmulTest, GatesLetThroughWhatPlainArithmeticDoes) {
  std::mt19937 rng(2);
  for (const HalfType type : kTypes) {
    for (const auto& [rows, inner, k] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
             {1, 8, 64}, {130, 128, 72}, {257, 360, 200}, {384, 120, 512}}) {
      const HalfMatrix x = HalfMatrix::Random(&rng, rows, k, type);
      const HalfMatrix weight = RandomWeight(&rng, 2 * inner, k, type);
      const std::vector<double> sums = PlainProduct(x, weight, rows);
      for (const HopperMatmulTile& tile : HopperMatmulTiles(MatmulEpilogue::kSwiGlu)) {
        HalfMatrix y(rows, inner, type);
        ASSERT_CUDA(HopperMatmul(TensorsOf(x, weight, y, MatmulEpilogue::kSwiGlu), tile, nullptr));
        y.Download();
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < inner; ++c) {
            const double gate = sums[static_cast<size_t>(r * 2 * inner + c)];
            const double up = sums[static_cast<size_t>(r * 2 * inner + inner + c)];
            const double want = gate / (1 + std::exp(-gate)) * up;
            const double sum_error = kF32Tolerance * static_cast<double>(k);
            ASSERT_NEAR(y.at(r, c), want,
                        RoundingOf(type, want) + kEpilogueTolerance * std::abs(want) +
                            sum_error * (std::abs(gate) + 1.2 * std::abs(up)))
                << rows << " x " << inner << " x " << k << ", tile " << tile.columns << " x "
                << tile.cluster_blocks << ", row " << r << " column " << c;
          }
        }
      }
    }
  }
}

TEST_F(HopperMatmulTest, LargeNegativeGatesLetNothingThrough) {
  const HalfMatrix x = [] {
    HalfMatrix ones(1, 64, HalfType::kBf16);
    for (int64_t i = 0; i < 64; ++i) ones.Set(0, i, 1);
    ones.Upload();
    return ones;
  }();
  HalfMatrix weight(16, 64, HalfType::kBf16, 0);
  for (int64_t r = 0; r < 16; ++r) {
    for (int64_t i = 0; i < 64; ++i) weight.Set(r, i, r < 8 ? -1000.0f : 1.0f);
  }
  weight.Upload();
  for (const HopperMatmulTile& tile : HopperMatmulTiles(MatmulEpilogue::kSwiGlu)) {
    HalfMatrix y(1, 8, HalfType::kBf16);
    ASSERT_CUDA(HopperMatmul(TensorsOf(x, weight, y, MatmulEpilogue::kSwiGlu), tile, nullptr));
    y.Download();
    for (int64_t c = 0; c < 8; ++c) EXPECT_EQ(y.at(0, c), 0);
  }
}

struct Heads {
  int64_t rows;
  int num_heads;
  int num_kv_heads;
  int others;
  int64_t k;
};

TEST_F(HopperMatmulTest, HeadsAreNormedAndRotatedAsByPlainArithmetic) {
  constexpr float kEps = 1e-6f;
  constexpr int64_t kPositions = 500;
  std::mt19937 rng(3);
  const FloatMatrix norms = FloatMatrix::Random(&rng, 2, kHeadDim, HalfType::kBf16, 0);
  const std::vector<float> weights = norms.Floats();
  DeviceBuffer<float> table(RopeTableFloats(kPositions, kHeadDim));
  ASSERT_CUDA(MakeRopeTable(table.get(), kPositions, kHeadDim, 1e6, nullptr));
  const std::vector<float> angles = table.ToHost();
  for (const HalfType type : kTypes) {
    for (const Heads& heads :
         {Heads{1, 1, 1, 1, 64}, Heads{130, 3, 1, 1, 200}, Heads{257, 4, 2, 2, 72},
          Heads{140, 0, 1, 1, 136}, Heads{20, 2, 0, 0, 64}}) {
      const int64_t columns =
          int64_t{heads.num_heads + heads.num_kv_heads + heads.others} * kHeadDim;
      const HalfMatrix x = HalfMatrix::Random(&rng, heads.rows, heads.k, type);
      const HalfMatrix weight = RandomWeight(&rng, columns, heads.k, type);
      const std::vector<double> sums = PlainProduct(x, weight, heads.rows);
      std::vector<int32_t> positions;
      for (int64_t r = 0; r < heads.rows; ++r) {
        positions.push_back(static_cast<int32_t>(rng() % kPositions));
      }
      const DeviceBuffer<int32_t> device_positions(positions);
      for (const HopperMatmulTile& tile : HopperMatmulTiles(MatmulEpilogue::kQkNormRope)) {
        HalfMatrix y(heads.rows, columns, type);
        HopperMatmulTensors tensors = TensorsOf(x, weight, y, MatmulEpilogue::kQkNormRope);
        tensors.rope = {heads.num_heads,
                        heads.num_kv_heads,
                        heads.num_heads > 0 ? norms.device() : nullptr,
                        heads.num_kv_heads > 0 ? norms.device() + kHeadDim : nullptr,
                        kEps,
                        device_positions.get(),
                        table.get()};
        ASSERT_CUDA(HopperMatmul(tensors, tile, nullptr));
        y.Download();
        for (int64_t r = 0; r < heads.rows; ++r) {
          const float* cosines = angles.data() + positions[static_cast<size_t>(r)] * kHeadDim;
          for (int64_t c = 0; c < columns; ++c) {
            const int head = static_cast<int>(c / kHeadDim);
            const double* values = sums.data() + r * columns + head * kHeadDim;
            const int i = static_cast<int>(c % kHeadDim);
            double want = values[i];
            double tolerance = kF32Tolerance * static_cast<double>(heads.k);
            if (head < heads.num_heads + heads.num_kv_heads) {
              const float* norm = weights.data() + (head < heads.num_heads ? 0 : kHeadDim);
              double square = 0;
              for (int j = 0; j < kHeadDim; ++j) square += values[j] * values[j];
              const double factor = 1 / std::sqrt(square / kHeadDim + kEps);
              const int partner = (i + kHeadDim / 2) % kHeadDim;
              const int angle = i % (kHeadDim / 2);
              const double sign = i < kHeadDim / 2 ? -1 : 1;
              want =
                  factor * (values[i] * norm[i] * cosines[angle] +
                            sign * values[partner] * norm[partner] * cosines[kHeadDim / 2 + angle]);
              tolerance = 4 * tolerance * factor + 4 * kEpilogueTolerance;
            }
            ASSERT_NEAR(y.at(r, c), want, RoundingOf(type, want) + tolerance)
                << heads.rows << " rows, tile " << tile.columns << " x " << tile.cluster_blocks
                << ", row " << r << " column " << c;
          }
        }
      }
    }
  }
}

// Codes with a scale for each row, and the same numbers in BF16, which holds them exactly.
struct Fp8Operand {
  Fp8Operand(std::mt19937* rng, int64_t rows, int64_t cols) : half(rows, cols, HalfType::kBf16, 0) {
    std::vector<uint8_t> bytes;
    std::vector<float> row_scales;
    for (int64_t r = 0; r < rows; ++r) {
      row_scales.push_back(std::ldexp(1.0f, -2 - static_cast<int>((*rng)() % 3)));
      for (int64_t c = 0; c < cols; ++c) {
        // From 1/4 to 15/8, of either sign.
        const uint32_t bits = (*rng)();
        bytes.push_back(static_cast<uint8_t>((bits & 0x87) | (5 + (bits >> 8) % 3) << 3));
        half.Set(r, c, Fp8Value(bytes.back()) * row_scales.back());
      }
    }
    half.Upload();
    codes = std::make_unique<DeviceBuffer<uint8_t>>(bytes);
    scales = std::make_unique<DeviceBuffer<float>>(row_scales);
  }
  HalfMatrix half;
  std::unique_ptr<DeviceBuffer<uint8_t>> codes;
  std::unique_ptr<DeviceBuffer<float>> scales;
};

TEST_F(HopperMatmulTest, Fp8OperandsGiveWhatTheirNumbersGiveInSixteenBits) {
  constexpr int64_t kPositions = 500;
  std::mt19937 rng(7);
  const FloatMatrix norms = FloatMatrix::Random(&rng, 2, kHeadDim, HalfType::kBf16, 0);
  const DeviceBuffer<float> table(RopeTableFloats(kPositions, kHeadDim));
  ASSERT_CUDA(MakeRopeTable(table.get(), kPositions, kHeadDim, 1e6, nullptr));
  for (const auto& [rows, n, k] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 256, 16}, {128, 512, 128}, {129, 768, 144}, {300, 1280, 2560}, {1100, 512, 9728}}) {
    const Fp8Operand x(&rng, rows, k);
    const Fp8Operand weight(&rng, n, k);
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < rows; ++r) {
      positions.push_back(static_cast<int32_t>(rng() % kPositions));
    }
    const DeviceBuffer<int32_t> device_positions(positions);
    for (const MatmulEpilogue epilogue :
         {MatmulEpilogue::kNone, MatmulEpilogue::kSwiGlu, MatmulEpilogue::kQkNormRope}) {
      const int64_t columns = epilogue == MatmulEpilogue::kSwiGlu ? n / 2 : n;
      for (const HopperMatmulTile& tile : HopperMatmulTiles(epilogue)) {
        HalfMatrix want(rows, columns, HalfType::kBf16);
        HalfMatrix got(rows, columns, HalfType::kBf16);
        HopperMatmulTensors tensors = TensorsOf(x.half, weight.half, want, epilogue);
        tensors.rope = {
            1,          1, norms.device(), norms.device() + kHeadDim, 1e-6f, device_positions.get(),
            table.get()};
        ASSERT_CUDA(HopperMatmul(tensors, tile, nullptr));
        tensors.x = x.codes->get();
        tensors.weight = weight.codes->get();
        tensors.x_scales = x.scales->get();
        tensors.weight_scales = weight.scales->get();
        tensors.y = got.device();
        ASSERT_CUDA(HopperMatmul(tensors, tile, nullptr));
        want.Download();
        got.Download();
        for (int64_t r = 0; r < rows; ++r) {
          double squares = 0;
          for (int64_t c = 0; c < columns; ++c) squares += want.at(r, c) * want.at(r, c);
          // Of sums with 14 bits, which are cut again and again as k goes on, and of the product of
          // two such.
          const double slack = epilogue == MatmulEpilogue::kSwiGlu ? 0.12 : 0.04;
          const double typical = std::sqrt(squares / static_cast<double>(columns));
          for (int64_t c = 0; c < columns; ++c) {
            ASSERT_NEAR(got.at(r, c), want.at(r, c),
                        std::abs(want.at(r, c)) / 128 + typical * slack)
                << rows << " x " << n << " x " << k << ", epilogue " << static_cast<int>(epilogue)
                << ", tile " << tile.columns << " x " << tile.cluster_blocks << ", row " << r
                << " column " << c;
          }
        }
      }
    }
  }
}

// Many tiles a block, and rows and columns at the end of the last ones.
TEST_F(HopperMatmulTest, RowsDoNotDependOnHowManyThereAre) {
  constexpr int64_t kRows = 5000;
  constexpr int64_t kInner = 1304;
  constexpr int64_t kPart = 100;
  std::mt19937 rng(4);
  const HalfMatrix x = HalfMatrix::Random(&rng, kRows, 584, HalfType::kBf16);
  const HalfMatrix weight = RandomWeight(&rng, 2 * kInner, 584, HalfType::kBf16);
  for (const MatmulEpilogue epilogue : {MatmulEpilogue::kNone, MatmulEpilogue::kSwiGlu}) {
    const int64_t columns = epilogue == MatmulEpilogue::kSwiGlu ? kInner : 2 * kInner;
    for (const HopperMatmulTile& tile : HopperMatmulTiles(epilogue)) {
      HalfMatrix all(kRows, columns, HalfType::kBf16);
      ASSERT_CUDA(HopperMatmul(TensorsOf(x, weight, all, epilogue), tile, nullptr));
      all.Download();
      for (const int64_t first : {int64_t{0}, int64_t{2000}, kRows - kPart}) {
        HalfMatrix part(kPart, columns, HalfType::kBf16);
        HopperMatmulTensors tensors = TensorsOf(x, weight, part, epilogue);
        tensors.x = x.device() + first * x.stride();
        ASSERT_CUDA(HopperMatmul(tensors, tile, nullptr));
        part.Download();
        for (int64_t r = 0; r < kPart; ++r) {
          ASSERT_EQ(all.RowBits(first + r), part.RowBits(r))
              << "tile " << tile.columns << " x " << tile.cluster_blocks << ", row " << first + r;
        }
      }
    }
  }
}

TEST_F(HopperMatmulTest, RowsDoNotTouchEachOther) {
  std::mt19937 rng(5);
  HalfMatrix x = HalfMatrix::Random(&rng, 200, 128, HalfType::kBf16);
  const HalfMatrix weight = RandomWeight(&rng, 256, 128, HalfType::kBf16);
  for (const HopperMatmulTile& tile : HopperMatmulTiles(MatmulEpilogue::kNone)) {
    HalfMatrix want(200, 256, HalfType::kBf16);
    ASSERT_CUDA(HopperMatmul(TensorsOf(x, weight, want, MatmulEpilogue::kNone), tile, nullptr));
    want.Download();
    HalfMatrix poisoned = x;
    poisoned.Set(70, 3, std::numeric_limits<float>::infinity());
    poisoned.Upload();
    HalfMatrix got(200, 256, HalfType::kBf16);
    ASSERT_CUDA(
        HopperMatmul(TensorsOf(poisoned, weight, got, MatmulEpilogue::kNone), tile, nullptr));
    got.Download();
    for (int64_t r = 0; r < 200; ++r) {
      if (r == 70) {
        EXPECT_FALSE(std::isfinite(got.at(r, 0)));
      } else {
        ASSERT_EQ(got.RowBits(r), want.RowBits(r)) << r;
      }
    }
  }
}

TEST_F(HopperMatmulTest, NoRowsAreNoWork) {
  std::mt19937 rng(6);
  const HalfMatrix x = HalfMatrix::Random(&rng, 1, 64, HalfType::kBf16);
  const HalfMatrix weight = RandomWeight(&rng, 128, 64, HalfType::kBf16);
  HalfMatrix y(1, 128, HalfType::kBf16);
  HopperMatmulTensors tensors = TensorsOf(x, weight, y, MatmulEpilogue::kNone);
  tensors.rows = 0;
  ASSERT_CUDA(HopperMatmul(tensors, HopperMatmulTiles(MatmulEpilogue::kNone)[0], nullptr));
  y.Download();
  EXPECT_TRUE(std::isnan(y.at(0, 0)));
}

TEST_F(HopperMatmulTest, RefusesWhatTheContractExcludes) {
  const HalfMatrix x(64, 64, HalfType::kBf16);
  const HalfMatrix weight(128, 64, HalfType::kBf16, 0);
  const HalfMatrix y(64, 128, HalfType::kBf16);
  const HopperMatmulTile tile = HopperMatmulTiles(MatmulEpilogue::kNone)[0];
  const HopperMatmulTensors good = TensorsOf(x, weight, y, MatmulEpilogue::kNone);
  const auto refused = [](const HopperMatmulTensors& tensors, const HopperMatmulTile& by) {
    return HopperMatmul(tensors, by, nullptr) == cudaErrorInvalidValue;
  };
  EXPECT_FALSE(refused(good, tile));
  EXPECT_TRUE(refused(good, {100, 1}));
  const DeviceBuffer<float> scales(128);
  HopperMatmulTensors half_scaled = good;
  half_scaled.x_scales = scales.get();
  EXPECT_TRUE(refused(half_scaled, tile));
  EXPECT_TRUE(refused(good, {tile.columns, 4}));
  HopperMatmulTensors bad = good;
  bad.in_features = 60;
  EXPECT_TRUE(refused(bad, tile));
  bad = good;
  bad.y_stride = 120;
  EXPECT_TRUE(refused(bad, tile));
  bad = good;
  bad.x = x.device() + 4;
  EXPECT_TRUE(refused(bad, tile));
  bad = good;
  bad.epilogue = MatmulEpilogue::kSwiGlu;
  bad.out_features = 24;  // 12 columns are not a multiple of 8
  EXPECT_TRUE(refused(bad, HopperMatmulTiles(MatmulEpilogue::kSwiGlu)[0]));
  bad = good;
  bad.epilogue = MatmulEpilogue::kQkNormRope;  // without a table
  EXPECT_TRUE(refused(bad, HopperMatmulTiles(MatmulEpilogue::kQkNormRope)[0]));
  ASSERT_CUDA(cudaDeviceSynchronize());
}

// Qwen3-Embedding-4B's gates for 1024 rows: 656 tiles of 240 columns go five times round 132
// multiprocessors almost evenly, where 608 of 256 leave half of them idle in the end.
TEST(LikelyHopperMatmulTilesTest, TilesThatGoRoundEvenlyComeFirst) {
  const std::vector<HopperMatmulTile> tiles =
      LikelyHopperMatmulTiles(MatmulEpilogue::kSwiGlu, 1024, 2 * 9728, 132);
  ASSERT_FALSE(tiles.empty());
  EXPECT_EQ(tiles[0].columns, 240);
}

TEST(LikelyHopperMatmulTilesTest, EveryNumberOfRowsHasSome) {
  for (const MatmulEpilogue epilogue :
       {MatmulEpilogue::kNone, MatmulEpilogue::kSwiGlu, MatmulEpilogue::kQkNormRope}) {
    for (const int64_t rows : {1, 767, 768, 1536, 1537, 100000}) {
      EXPECT_FALSE(LikelyHopperMatmulTiles(epilogue, rows, 1024, 132).empty()) << rows;
    }
  }
}

}  // namespace
}  // namespace quiver
