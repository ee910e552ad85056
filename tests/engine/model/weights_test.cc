#include "engine/model/weights.h"

#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::vector<RawTensor>& Tensors() {
  static const std::vector<RawTensor> tensors = {
      {"a", DType::kF32, {2, 3}, std::string(24, 'a')},
      {"b", DType::kBF16, {5}, std::string(10, 'b')},
      {"c", DType::kI64, {}, std::string(8, 'c')},
      {"none", DType::kF16, {0, 7}, ""},
  };
  return tensors;
}

// A file whose header is any text.
std::string FileOf(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(header.size() >> (8 * i)));
  return bytes + header + data;
}

std::string DirOf(const std::string& file) {
  const std::string dir = TestDir("weights");
  WriteFile(dir + "/model.safetensors", file);
  return dir;
}

std::string OpenError(const std::string& dir) { return Weights::Open(dir).status().ToString(); }
std::string FileError(const std::string& file) { return OpenError(DirOf(file)); }

std::unique_ptr<Weights> OpenOrFail(const std::string& dir) {
  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return weights.ok() ? *std::move(weights) : nullptr;
}

// A header of one tensor "t".
std::string OneTensor(const json& dtype, const json& shape, const json& offsets) {
  return json{{"t", {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}}}}.dump();
}

TEST(WeightsTest, TensorsAreWhatTheFileHolds) {
  const auto weights = OpenOrFail(DirOf(SafetensorsBytes(Tensors())));
  ASSERT_NE(weights, nullptr);
  EXPECT_EQ(weights->tensors().size(), 4u);
  for (const RawTensor& expected : Tensors()) {
    const absl::StatusOr<TensorView> tensor = weights->Get(expected.name, expected.shape);
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_EQ(tensor->dtype, expected.dtype);
    EXPECT_EQ(tensor->shape, expected.shape);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor->data), tensor->size_bytes),
              expected.bytes);
    EXPECT_THAT(tensor->file, HasSubstr("model.safetensors"));
  }
  EXPECT_EQ(weights->num_parameters(), 6 + 5 + 1);
  EXPECT_EQ(weights->num_bytes(), 42);
  EXPECT_TRUE(weights->Contains("a"));
  EXPECT_FALSE(weights->Contains("d"));
}

TEST(WeightsTest, GetNamesTensorFileAndBothShapes) {
  const auto weights = OpenOrFail(DirOf(SafetensorsBytes(Tensors())));
  ASSERT_NE(weights, nullptr);
  EXPECT_THAT(weights->Get("a", {3, 2}).status().ToString(),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("\"a\""),
                    HasSubstr("model.safetensors"), HasSubstr("[2, 3]"), HasSubstr("[3, 2]")));
  EXPECT_THAT(weights->Get("d", {4}).status().ToString(),
              AllOf(HasSubstr("NOT_FOUND"), HasSubstr("\"d\""), HasSubstr("model.safetensors"),
                    HasSubstr("[4]")));
}

TEST(WeightsTest, DroppedPagesReadTheSameAgain) {
  const std::string big(100'000, 'x');
  const auto weights = OpenOrFail(DirOf(SafetensorsBytes({{"big", DType::kU8, {100'000}, big}})));
  ASSERT_NE(weights, nullptr);
  const TensorView& tensor = weights->tensors().at("big");
  weights->DropPages(tensor);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(tensor.data), tensor.size_bytes), big);
}

TEST(WeightsTest, ATruncatedFileIsDataLossWhereverItEnds) {
  const std::string whole = SafetensorsBytes(Tensors());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(FileError(whole.substr(0, size)),
                AllOf(HasSubstr("DATA_LOSS"), HasSubstr("model.safetensors")))
        << size;
  }
}

TEST(WeightsTest, EveryLieOfAHeaderIsNamed) {
  const std::string data(8, 'd');
  const auto error = [&](const json& dtype, const json& shape, const json& offsets) {
    return FileError(FileOf(OneTensor(dtype, shape, offsets), data));
  };
  EXPECT_EQ(error("F32", {2}, {0, 8}), "OK");
  const auto lie = [](const char* what) {
    return AllOf(HasSubstr("DATA_LOSS"), HasSubstr("model.safetensors"), HasSubstr("\"t\""),
                 HasSubstr(what));
  };
  EXPECT_THAT(error("F32", {3}, {0, 8}), lie("takes 12 bytes"));
  EXPECT_THAT(error("F32", {2}, {0, 12}), lie("leaves the file"));
  EXPECT_THAT(error("F32", {2}, {8, 16}), lie("leaves the file"));
  EXPECT_THAT(error("F32", {2}, {8, 0}), lie("leaves the file"));
  EXPECT_THAT(error("F32", {2}, {-8, 0}), lie("data_offsets"));
  EXPECT_THAT(error("F32", {2}, {0, 8.0}), lie("data_offsets"));
  EXPECT_THAT(error("F32", {2}, {0}), lie("data_offsets"));
  EXPECT_THAT(error("F32", {2}, "0-8"), lie("data_offsets"));
  EXPECT_THAT(error("F33", {2}, {0, 8}), lie("F33"));
  EXPECT_THAT(error(7, {2}, {0, 8}), lie("dtype"));
  EXPECT_THAT(error("F32", {-2}, {0, 8}), lie("shape"));
  EXPECT_THAT(error("F32", {2.0}, {0, 8}), lie("shape"));
  EXPECT_THAT(error("F32", 2, {0, 8}), lie("shape"));
  EXPECT_THAT(error("F32", {0x100000000, 0x100000000}, {0, 8}), lie("shape"));
  EXPECT_THAT(error("U8", {UINT64_MAX}, {0, 8}), lie("shape"));
  EXPECT_THAT(error("U8", {4}, {0, 4}), AllOf(HasSubstr("DATA_LOSS"), HasSubstr("4 bytes")));
  EXPECT_THAT(error("U8", {4}, {4, 8}), lie("4 bytes before it"));
  EXPECT_THAT(FileError(FileOf(R"({"t": {"dtype": "U8"}})", data)), lie("shape"));
  EXPECT_THAT(FileError(FileOf(R"({"t": 5})", data)), lie("object"));
}

TEST(WeightsTest, OverlappingTensorsAreRefused) {
  const json header = {{"s", {{"dtype", "U8"}, {"shape", {6}}, {"data_offsets", {0, 6}}}},
                       {"t", {{"dtype", "U8"}, {"shape", {4}}, {"data_offsets", {4, 8}}}}};
  EXPECT_THAT(FileError(FileOf(header.dump(), std::string(8, 'd'))),
              AllOf(HasSubstr("DATA_LOSS"), HasSubstr("\"t\""), HasSubstr("overlaps")));
}

TEST(WeightsTest, ATensorNamedTwiceIsRefused) {
  const std::string entry = R"("t": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]})";
  EXPECT_THAT(FileError(FileOf("{" + entry + "," + entry + "}", std::string(8, 'd'))),
              AllOf(HasSubstr("DATA_LOSS"), HasSubstr("\"t\""), HasSubstr("twice")));
}

TEST(WeightsTest, AHeaderThatIsNoJsonObjectIsRefused) {
  for (const std::string header : {"", "{", "[]", "null", "{\"\xff\": 1}"}) {
    EXPECT_THAT(FileError(FileOf(header, "")), HasSubstr("DATA_LOSS")) << header;
  }
  EXPECT_THAT(FileError(FileOf(
                  "{\"t\":" + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}", "")),
              HasSubstr("deep"));
}

TEST(WeightsTest, AHeaderLongerThanTheFileIsRefused) {
  std::string bytes = SafetensorsBytes(Tensors());
  for (const int byte : {3, 7}) {
    std::string lying = bytes;
    lying[byte] = '\x7f';
    EXPECT_THAT(FileError(lying), AllOf(HasSubstr("DATA_LOSS"), HasSubstr("header")));
  }
}

TEST(WeightsTest, AFolderWithoutWeightsIsNamed) {
  EXPECT_THAT(OpenError(TestDir("empty")),
              AllOf(HasSubstr("NOT_FOUND"), HasSubstr("model.safetensors")));
  EXPECT_THAT(OpenError("/nonexistent"), HasSubstr("NOT_FOUND"));
}

class ShardsTest : public testing::Test {
 protected:
  void SetUp() override {
    model_.shards = 3;
    dir_ = MakeTinyModelDir(model_);
    index_path_ = dir_ + "/model.safetensors.index.json";
    index_ = json::parse(ReadFile(index_path_));
  }
  std::string ErrorWith(const json& index) {
    WriteFile(index_path_, index.dump());
    return OpenError(dir_);
  }

  TinyModel model_;
  std::string dir_;
  std::string index_path_;
  json index_;
  const std::string second_ = "model-00002-of-00003.safetensors";
};

TEST_F(ShardsTest, ShardsHoldWhatASingleFileHolds) {
  TinyModel single = model_;
  single.shards = 1;
  const auto sharded = OpenOrFail(dir_);
  const auto whole = OpenOrFail(MakeTinyModelDir(single));
  ASSERT_TRUE(sharded != nullptr && whole != nullptr);
  EXPECT_EQ(sharded->tensors().size(), whole->tensors().size());
  EXPECT_EQ(sharded->num_parameters(), whole->num_parameters());
  EXPECT_EQ(sharded->Fingerprint(1), whole->Fingerprint(3));
}

TEST_F(ShardsTest, AMissingShardIsNamed) {
  std::filesystem::remove(dir_ + "/" + second_);
  EXPECT_THAT(OpenError(dir_), AllOf(HasSubstr("NOT_FOUND"), HasSubstr(second_)));
}

TEST_F(ShardsTest, ATruncatedShardIsNamed) {
  const std::string path = dir_ + "/" + second_;
  const std::string bytes = ReadFile(path);
  WriteFile(path, bytes.substr(0, bytes.size() - 1));
  EXPECT_THAT(OpenError(dir_), AllOf(HasSubstr("DATA_LOSS"), HasSubstr(second_)));
}

TEST_F(ShardsTest, AnIndexThatDisagreesWithItsShardsIsRefused) {
  json more = index_;
  more["weight_map"]["model.extra"] = second_;
  EXPECT_THAT(ErrorWith(more),
              AllOf(HasSubstr("DATA_LOSS"), HasSubstr("model.extra"), HasSubstr(second_)));
  json fewer = index_;
  fewer["weight_map"].erase("model.norm.weight");
  EXPECT_THAT(ErrorWith(fewer), AllOf(HasSubstr("DATA_LOSS"), HasSubstr("tensors")));
  json elsewhere = index_;
  const std::string actual = elsewhere["weight_map"]["model.norm.weight"];
  elsewhere["weight_map"]["model.norm.weight"] =
      actual == second_ ? "model-00001-of-00003.safetensors" : second_;
  EXPECT_THAT(ErrorWith(elsewhere), AllOf(HasSubstr("DATA_LOSS"), Not(HasSubstr("NOT_FOUND"))));
}

TEST_F(ShardsTest, ATensorInTwoShardsIsRefused) {
  const std::string copy = "model-00004-of-00003.safetensors";
  std::filesystem::copy_file(dir_ + "/" + second_, dir_ + "/" + copy);
  json index = index_;
  index["weight_map"]["model.extra"] = copy;
  EXPECT_THAT(ErrorWith(index), AllOf(HasSubstr("DATA_LOSS"), HasSubstr(copy), HasSubstr(second_)));
}

TEST_F(ShardsTest, AMalformedIndexIsDataLoss) {
  for (const json& index :
       {json(), json::object(), json{{"weight_map", 5}}, json{{"weight_map", json::object()}},
        json{{"weight_map", {{"a", 5}}}}, json{{"weight_map", {{"a", "../model.safetensors"}}}}}) {
    EXPECT_THAT(ErrorWith(index), AllOf(HasSubstr("DATA_LOSS"), HasSubstr("index.json"))) << index;
  }
}

TEST(FingerprintTest, DependsOnNameTypeShapeAndEveryByte) {
  const auto fingerprint = [](const std::vector<RawTensor>& tensors) {
    const auto weights = OpenOrFail(DirOf(SafetensorsBytes(tensors)));
    return weights == nullptr ? "" : weights->Fingerprint(2);
  };
  // Longer than a piece of the digest.
  const RawTensor big = {"big", DType::kU8, {(8 << 20) + 5}, std::string((8 << 20) + 5, 'x')};
  const std::string base = fingerprint({big});
  EXPECT_EQ(base.size(), 32u);
  EXPECT_EQ(fingerprint({big}), base);
  RawTensor other = big;
  other.bytes.back() = 'y';
  EXPECT_NE(fingerprint({other}), base);
  other = big;
  other.name = "bog";
  EXPECT_NE(fingerprint({other}), base);
  other = big;
  other.dtype = DType::kI8;
  EXPECT_NE(fingerprint({other}), base);
  other = big;
  other.shape = {1, (8 << 20) + 5};
  EXPECT_NE(fingerprint({other}), base);
}

TEST(WeightsTest, MutatedFilesNeverCrash) {
  std::mt19937 rng(12);
  const std::string whole = SafetensorsBytes(Tensors());
  const std::string dir = DirOf(whole);
  int opened = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string bytes = whole;
    for (int flips = 1 + static_cast<int>(rng() % 3); flips > 0; --flips) {
      bytes[rng() % bytes.size()] = static_cast<char>(rng());
    }
    WriteFile(dir + "/model.safetensors", bytes);
    const auto weights = Weights::Open(dir);
    if (!weights.ok()) {
      EXPECT_EQ(weights.status().code(), absl::StatusCode::kDataLoss) << weights.status();
      continue;
    }
    ++opened;
    // Every byte that a view names can be read.
    (*weights)->Fingerprint(1);
  }
  EXPECT_GT(opened, 0);
}

}  // namespace
}  // namespace quiver
