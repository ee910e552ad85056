#include "tools/index/vector_file.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/stored_type.h"
#include "tools/index/nearest.h"

namespace quiver::index {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Bytes32(uint32_t value) { return {reinterpret_cast<const char*>(&value), 4}; }

std::string Bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

std::string Npy(const std::string& dictionary, const std::string& data) {
  std::string header = dictionary;
  header.resize(117, ' ');
  return std::string("\x93NUMPY\x01\x00\x76\x00", 10) + header + "\n" + data;
}

class Files : public ::testing::Test {
 protected:
  ~Files() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  std::string OpenError(const std::string& name, const std::string& bytes) {
    const auto file = VectorFile::Open(Write(name, bytes));
    EXPECT_FALSE(file.ok());
    EXPECT_THAT(file.status().message(), HasSubstr(name));
    return std::string(file.status().message());
  }

  std::vector<float> ReadAll(const std::string& name, const std::string& bytes) {
    const auto file = VectorFile::Open(Write(name, bytes));
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return {};
    std::vector<float> values((*file)->rows() * static_cast<size_t>((*file)->dimensions()));
    EXPECT_TRUE((*file)->Read(0, (*file)->rows(), values.data()).ok());
    return values;
  }

 private:
  static std::string MakeFolder() {
    std::string name = std::filesystem::temp_directory_path() / "vectors-XXXXXX";
    return mkdtemp(name.data());
  }
  const std::string folder_ = MakeFolder();
};

TEST_F(Files, EveryFormatGivesItsRows) {
  const std::string head = Bytes32(2) + Bytes32(3);
  const std::vector<float> rows = {1, 2, 3, -4, 0.5, 6};
  std::string halves;
  for (const float value : rows) {
    const uint16_t half = cpu::FloatToHalf(value);
    halves.append(reinterpret_cast<const char*>(&half), 2);
  }
  const auto expected = ElementsAre(1, 2, 3, -4, 0.5, 6);
  EXPECT_THAT(ReadAll("a.fbin", head + Bytes(rows)), expected);
  EXPECT_THAT(ReadAll("a.f16bin", head + halves), expected);
  EXPECT_THAT(ReadAll("a.i8bin", head + std::string("\x01\x02\x03\xFC\x7F\x80", 6)),
              ElementsAre(1, 2, 3, -4, 127, -128));
  EXPECT_THAT(ReadAll("a.fvecs", Bytes32(3) + Bytes({1, 2, 3}) + Bytes32(3) + Bytes({-4, 0.5, 6})),
              expected);
  EXPECT_THAT(ReadAll("a.npy", Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
                                   Bytes(rows))),
              expected);
  EXPECT_THAT(
      ReadAll("b.npy", Npy("{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }", halves)),
      expected);
}

TEST_F(Files, AHeaderThatItsSizeDoesNotBearOutIsRefused) {
  EXPECT_THAT(OpenError("short.fbin", Bytes32(2) + Bytes32(3) + Bytes({1, 2, 3})),
              HasSubstr("2 rows of 3 dimensions"));
  EXPECT_THAT(OpenError("long.fbin", Bytes32(1) + Bytes32(1) + Bytes({1, 2})), HasSubstr("1 rows"));
  EXPECT_THAT(OpenError("none.fbin", Bytes32(1) + Bytes32(0)), HasSubstr("dimensions"));
  EXPECT_THAT(OpenError("huge.f16bin", Bytes32(1) + Bytes32(0xFFFFFFFF)), HasSubstr("dimensions"));
  EXPECT_THAT(OpenError("cut.i8bin", Bytes32(1)), HasSubstr("header"));
  EXPECT_THAT(OpenError("cut.fvecs", Bytes32(3) + Bytes({1})), HasSubstr("3 dimensions"));
  EXPECT_THAT(OpenError("cut.npy", "\x93NUMPY"), HasSubstr("no NumPy array"));
  EXPECT_THAT(OpenError("long.npy", std::string("\x93NUMPY\x01\x00\xFF\xFF{}", 12)),
              HasSubstr("within its header"));
  EXPECT_THAT(
      OpenError("order.npy",
                Npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", Bytes({1}))),
      HasSubstr("C order"));
  EXPECT_THAT(
      OpenError("type.npy",
                Npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1), }", Bytes({1, 2}))),
      HasSubstr("<f8"));
  EXPECT_THAT(
      OpenError("shape.npy",
                Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", Bytes({1}))),
      HasSubstr("shape"));
  EXPECT_THAT(OpenError("what.bin", "x"), HasSubstr(".fbin"));
}

TEST_F(Files, ARowOfAnotherLengthIsNamed) {
  const std::string path = Write("mixed.fvecs", Bytes32(1) + Bytes({1}) + Bytes32(2) + Bytes({1}));
  const auto file = VectorFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  float rows[2];
  EXPECT_THAT((*file)->Read(0, 2, rows).message(), HasSubstr("row 1 has 2 dimensions"));
}

TEST_F(Files, TheNearestAreThoseOfPlainArithmetic) {
  constexpr int kRows = 20000, kDimensions = 19, kQueries = 3, kTop = 7;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> rows(kRows * kDimensions), queries(kQueries * kDimensions);
  for (float& value : rows) value = normal(random);
  for (float& value : queries) value = normal(random);
  // Equal rows rank in their order.
  std::copy_n(rows.begin(), kDimensions, rows.end() - kDimensions);
  std::copy_n(rows.begin(), kDimensions, queries.begin());
  const auto file =
      VectorFile::Open(Write("a.fbin", Bytes32(kRows) + Bytes32(kDimensions) + Bytes(rows)));
  ASSERT_TRUE(file.ok()) << file.status();
  cpu::ThreadPool pool(3);
  for (const Similarity similarity : {Similarity::kCosine, Similarity::kInnerProduct}) {
    const auto found = FindNearest(**file, queries, similarity, kTop, &pool);
    ASSERT_TRUE(found.ok()) << found.status();
    for (int q = 0; q < kQueries; ++q) {
      std::vector<std::pair<double, int>> all;
      for (int r = 0; r < kRows; ++r) {
        double dot = 0, row = 0, query = 0;
        for (int i = 0; i < kDimensions; ++i) {
          const double a = rows[r * kDimensions + i], b = queries[q * kDimensions + i];
          dot += a * b;
          row += a * a;
          query += b * b;
        }
        if (similarity == Similarity::kCosine) dot /= std::sqrt(row * query);
        all.emplace_back(-dot, r);
      }
      std::sort(all.begin(), all.end());
      ASSERT_EQ((*found)[q].size(), kTop);
      for (int i = 0; i < kTop; ++i) {
        EXPECT_EQ((*found)[q][i].row, all[i].second);
        EXPECT_NEAR((*found)[q][i].score, -all[i].first, 1e-4);
      }
    }
  }
}

TEST_F(Files, FewerRowsThanAreAskedForAreAllFound) {
  const auto file = VectorFile::Open(Write("a.fbin", Bytes32(2) + Bytes32(1) + Bytes({1, -1})));
  const auto found = FindNearest(**file, {2.f}, Similarity::kCosine, 10, nullptr);
  ASSERT_TRUE(found.ok()) << found.status();
  ASSERT_EQ((*found)[0].size(), 2);
  EXPECT_EQ((*found)[0][1].score, -1);
}

TEST_F(Files, ARowThatCannotBeRankedIsNamed) {
  for (const float bad :
       {0.f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const auto file = VectorFile::Open(Write("a.fbin", Bytes32(2) + Bytes32(1) + Bytes({1, bad})));
    const auto found = FindNearest(**file, {2.f}, Similarity::kCosine, 10, nullptr);
    EXPECT_EQ(found.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(found.status().message(), HasSubstr("row 1 is "));
  }
}

}  // namespace
}  // namespace quiver::index
