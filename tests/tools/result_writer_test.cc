#include "tools/quiver/result_writer.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "engine/field_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/stored_type.h"
#include "nlohmann/json.hpp"
#include "tests/testing/tiny_checkpoint.h"
#include "tools/quiver/json_text.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;

InputItem Item(uint64_t index, const std::string& id_json = "") {
  return {.index = index, .place = "line 1", .id_json = id_json, .text = std::string()};
}

template <typename T>
Embedding Vector(const std::vector<T>& values, float scale = 0) {
  Embedding embedding;
  embedding.vector.data.assign(reinterpret_cast<const char*>(values.data()),
                               values.size() * sizeof(T));
  embedding.vector.scale = scale;
  embedding.token_count = 7;
  return embedding;
}

std::unique_ptr<OutputFile> Open(const std::string& path, OutputFile::Mode mode) {
  auto file = OutputFile::Open(path, mode);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : nullptr;
}

// The line that `result` becomes.
std::string Line(OutputType type, const InputItem& item, const absl::StatusOr<Embedding>& result) {
  const std::string path = TestDir("result_writer") + "/lines";
  auto writer = JsonlEmbeddings(Open(path, OutputFile::Mode::kAsItGoes), type);
  EXPECT_TRUE(writer->Begin(3).ok());
  EXPECT_TRUE(writer->Put(item, result).ok());
  EXPECT_TRUE(writer->Close().ok());
  return ReadFile(path);
}

TEST(JsonTextTest, FloatsReadBackAsTheSameInTheFewestDigits) {
  std::string text;
  const std::vector<float> values = {
      0.1f, -0.0f, 1.0f, 1.0f / 3, 1e-45f, std::numeric_limits<float>::max(), 1e-7f, 16777216.0f};
  AppendJsonArray(values, &text);
  EXPECT_EQ(text, "[0.1,-0,1,0.33333334,1e-45,3.4028235e+38,1e-07,16777216]");
  const auto parsed = nlohmann::json::parse(text).get<std::vector<double>>();
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(static_cast<float>(parsed[i]), values[i]);
  text.clear();
  AppendJsonArray(std::vector<float>(), &text);
  EXPECT_EQ(text, "[]");
}

TEST(JsonlTest, ResultsCarryTheNameOrTheIndex) {
  EXPECT_EQ(Line(OutputType::kFloat32, Item(3), Vector<float>({0.5, -1})),
            "{\"index\":3,\"embedding\":[0.5,-1],\"tokens\":7}\n");
  Embedding cut = Vector<float>({0.5, -1});
  cut.truncated = true;
  EXPECT_EQ(Line(OutputType::kFloat32, Item(3, "\"a\""), cut),
            "{\"id\":\"a\",\"embedding\":[0.5,-1],\"tokens\":7,\"truncated\":true}\n");
}

TEST(JsonlTest, ErrorsCarryCodeAndMessageAsOneLine) {
  EXPECT_EQ(Line(OutputType::kFloat32, Item(3, "7"), FieldError("text", "say \"hi\"\n\xFF")),
            "{\"id\":7,\"error\":{\"code\":\"INVALID_ARGUMENT\",\"message\":\"text: say "
            "\\\"hi\\\"\\n\xEF\xBF\xBD\"}}\n");
}

TEST(JsonlTest, EveryTypeIsWrittenAsWhatItHolds) {
  EXPECT_EQ(Line(OutputType::kFloat16, Item(0), Vector<uint16_t>({cpu::FloatToHalf(0.5f)})),
            "{\"index\":0,\"embedding\":[0.5],\"tokens\":7}\n");
  EXPECT_EQ(Line(OutputType::kBfloat16, Item(0), Vector<uint16_t>({cpu::FloatToBfloat16(-2.0f)})),
            "{\"index\":0,\"embedding\":[-2],\"tokens\":7}\n");
  EXPECT_EQ(Line(OutputType::kInt8, Item(0), Vector<int8_t>({-127, 3}, 0.25f)),
            "{\"index\":0,\"embedding\":[-127,3],\"scale\":0.25,\"tokens\":7}\n");
  EXPECT_EQ(Line(OutputType::kBinary, Item(0), Vector<uint8_t>({255, 128})),
            "{\"index\":0,\"embedding\":[255,128],\"tokens\":7}\n");
}

TEST(JsonlTest, TokensCarryTheirIds) {
  const std::string path = TestDir("result_writer") + "/ids";
  auto writer = JsonlTokens(Open(path, OutputFile::Mode::kAsItGoes));
  ASSERT_TRUE(writer->Put(Item(0), TokenizedInput{{101, 7, 102}, true}).ok());
  ASSERT_TRUE(writer->Close().ok());
  EXPECT_EQ(ReadFile(path), "{\"index\":0,\"ids\":[101,7,102],\"truncated\":true}\n");
}

TEST(NpyTest, HasAlignedHeaderAndRowsInOrderWithNanForFailures) {
  const std::string path = TestDir("result_writer") + "/out.npy";
  auto writer = NpyEmbeddings(Open(path, OutputFile::Mode::kWhole), OutputType::kFloat32);
  ASSERT_TRUE(writer->Begin(2).ok());
  ASSERT_TRUE(writer->Put(Item(0), Vector<float>({1, 2})).ok());
  ASSERT_TRUE(writer->Put(Item(1), absl::InternalError("NaN")).ok());
  EXPECT_FALSE(std::filesystem::exists(path));
  ASSERT_TRUE(writer->Close().ok());

  const std::string bytes = ReadFile(path);
  const size_t data = 10 + static_cast<unsigned char>(bytes[8]);
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  EXPECT_EQ(data % 64, 0u);
  EXPECT_EQ(bytes[data - 1], '\n');
  EXPECT_NE(bytes.find("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"),
            std::string::npos);
  ASSERT_EQ(bytes.size(), data + 4 * sizeof(float));
  float values[4];
  std::memcpy(values, bytes.data() + data, sizeof(values));
  EXPECT_EQ(values[0], 1);
  EXPECT_EQ(values[1], 2);
  EXPECT_TRUE(std::isnan(values[2]) && std::isnan(values[3]));
}

TEST(NpyTest, NothingIsLeftOfARunThatFailed) {
  const std::string folder = TestDir("npy_failed");
  auto writer =
      NpyEmbeddings(Open(folder + "/out.npy", OutputFile::Mode::kWhole), OutputType::kFloat32);
  ASSERT_TRUE(writer->Begin(2).ok());
  EXPECT_EQ(writer->Put(Item(0), Vector<float>({1})).code(), absl::StatusCode::kInternal);
  writer.reset();
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(NpyTest, IntegersAreScaled) {
  EXPECT_THAT(DecodeFloats(OutputType::kInt8, Vector<int8_t>({-2, 127}, 0.5f).vector),
              ElementsAre(-1.0f, 63.5f));
}

TEST(OutputFileTest, AWholeFileNeedsToBeARegularOne) {
  EXPECT_EQ(OutputFile::Open("/dev/null", OutputFile::Mode::kWhole).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OutputFile::Open("-", OutputFile::Mode::kWhole).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(OutputFileTest, AFullDeviceIsAnError) {
  auto file = Open("/dev/full", OutputFile::Mode::kAsItGoes);
  ASSERT_TRUE(file->Write("x").ok());
  EXPECT_EQ(file->Close().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace quiver
