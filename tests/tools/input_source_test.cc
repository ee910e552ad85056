#include "tools/quiver/input_source.h"

#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_checkpoint.h"
#include "tools/quiver/json_text.h"
#include "tools/quiver/line_reader.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Every item as "place|id|text" or "place|id|!error".
std::vector<std::string> Items(InputSource* source) {
  std::vector<std::string> items;
  InputItem item;
  while (source->Next(&item)) {
    EXPECT_EQ(item.index, items.size());
    items.push_back(item.place + "|" + item.id_json + "|" +
                    (item.text.ok() ? *item.text : "!" + ErrorText(item.text.status())));
  }
  EXPECT_TRUE(source->status().ok()) << source->status();
  return items;
}

std::vector<std::string> ItemsOf(const std::string& bytes,
                                 InputFormat format = InputFormat::kDetect,
                                 const std::string& name = "input",
                                 size_t max_line_bytes = kMaxLineBytes) {
  const std::string path = TestDir("input_source") + "/" + name;
  WriteFile(path, bytes);
  auto source = SourceOfFile(path, format, max_line_bytes);
  if (!source.ok()) return {source.status().ToString()};
  return Items(source->get());
}

TEST(InputSourceTest, LinesAreTextsWhateverEndsThem) {
  EXPECT_THAT(ItemsOf("one\ntwo\r\nthree"),
              ElementsAre("line 1||one", "line 2||two", "line 3||three"));
  EXPECT_THAT(ItemsOf("one\n"), ElementsAre("line 1||one"));
  EXPECT_THAT(ItemsOf("\xEF\xBB\xBFone\n\xEF\xBB\xBFtwo"),
              ElementsAre("line 1||one", "line 2||\xEF\xBB\xBFtwo"));
  EXPECT_THAT(ItemsOf(""), ElementsAre());
}

TEST(InputSourceTest, EmptyLinesOfTextAreItems) {
  EXPECT_THAT(ItemsOf("\none\n\n"), ElementsAre("line 1||", "line 2||one", "line 3||"));
}

TEST(InputSourceTest, ALineThatIsNoUtf8FailsAlone) {
  EXPECT_THAT(
      ItemsOf("one\nab\xFF\nthree\n"),
      ElementsAre("line 1||one", "line 2||!text: invalid UTF-8 at byte 2", "line 3||three"));
}

TEST(InputSourceTest, JsonlIsKnownByItsFirstLineOrItsName) {
  EXPECT_THAT(ItemsOf("{\"text\": \"a\", \"id\": \"x\"}\n"), ElementsAre("line 1|\"x\"|a"));
  EXPECT_THAT(ItemsOf("{\"words\": \"a\"}\n"), ElementsAre("line 1||{\"words\": \"a\"}"));
  EXPECT_THAT(ItemsOf("{\"text\": \"a\"}\n", InputFormat::kText),
              ElementsAre("line 1||{\"text\": \"a\"}"));
  EXPECT_THAT(ItemsOf("nonsense\n{\"text\": \"a\"}\n", InputFormat::kDetect, "x.jsonl"),
              ElementsAre(HasSubstr("line 1||!line: must be JSON"), "line 2||a"));
}

TEST(InputSourceTest, NamesAreStringsOrIntegersAndKeptAsTheyAre) {
  EXPECT_THAT(ItemsOf("{\"text\":\"a\",\"id\":\"\\u00e9\\\"\"}\n{\"text\":\"b\",\"id\":-7}\n"
                      "{\"text\":\"c\",\"id\":null}\n{\"text\":\"d\",\"id\":1.5}\n"),
              ElementsAre("line 1|\"\u00e9\\\"\"|a", "line 2|-7|b", "line 3||c",
                          "line 4||!id: must be a string or an integer; it is of type number"));
}

TEST(InputSourceTest, ABrokenJsonLineFailsAloneUnderItsName) {
  EXPECT_THAT(ItemsOf("{\"text\":\"a\"}\n{\"text\":\n\n[1]\n{\"id\":\"n\"}\n{\"id\":3,\"text\":4}\n"
                      "{\"text\":\"\xFF\"}\n{\"text\":\"\\ud800\"}\n{\"text\":\"z\"}\n"),
              ElementsAre("line 1||a", "line 2||!line: must be JSON; it is broken at byte 8",
                          "line 4||!line: must be a JSON object; it is of type array",
                          "line 5|\"n\"|!text: must be a string; it is absent",
                          "line 6|3|!text: must be a string; it is of type number",
                          "line 7||!line: invalid UTF-8 at byte 9",
                          HasSubstr("line 8||!line: must be JSON"), "line 9||z"));
}

TEST(InputSourceTest, ALineThatIsTooLongFailsAloneAndIsNotKept) {
  const std::string longest(300'000, 'x');
  EXPECT_THAT(
      ItemsOf(longest + "\n" + longest + "x\nlast\n", InputFormat::kText, "input", 300'000),
      ElementsAre("line 1||" + longest,
                  "line 2||!line: must be at most 300000 bytes; it has 300001", "line 3||last"));
}

TEST(InputSourceTest, ArgumentsAreTexts) {
  EXPECT_THAT(
      Items(SourceOfTexts({"a", "", "\xC3"}).get()),
      ElementsAre("argument 1||a", "argument 2||", "argument 3||!text: invalid UTF-8 at byte 0"));
}

TEST(InputSourceTest, AFileThatCannotBeReadIsNamed) {
  EXPECT_EQ(SourceOfFile("/no/such/file", InputFormat::kText).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(SourceOfFile("/tmp", InputFormat::kText).status().message(),
              HasSubstr("/tmp: is a directory"));
}

class PipeTest : public ::testing::Test {
 protected:
  PipeTest() {
    EXPECT_EQ(pipe(ends_), 0);
    reader_ = std::make_unique<LineReader>(ends_[0], true, "pipe", 1000);
  }
  ~PipeTest() override { close(ends_[1]); }

  void Write(const std::string& bytes) {
    ASSERT_EQ(write(ends_[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }

  int ends_[2];
  std::unique_ptr<LineReader> reader_;
};

TEST_F(PipeTest, SaysWhetherALineIsAtHand) {
  EXPECT_TRUE(reader_->WouldWait());
  Write("one\ntwo\n");
  EXPECT_FALSE(reader_->WouldWait());
  LineReader::Line line;
  ASSERT_TRUE(reader_->Next(&line));
  EXPECT_FALSE(reader_->WouldWait());
  ASSERT_TRUE(reader_->Next(&line));
  EXPECT_EQ(line.text, "two");
  EXPECT_TRUE(reader_->WouldWait());
}

TEST_F(PipeTest, InterruptEndsAReadThatWaits) {
  LineReader::Line line;
  std::thread reading([&] { EXPECT_FALSE(reader_->Next(&line)); });
  reader_->Interrupt();
  reading.join();
  EXPECT_EQ(reader_->status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(reader_->Next(&line));
}

TEST_F(PipeTest, ADeadlineEndsAReadThatWaitsAndDropsWhatIsThere) {
  Write("one\n");
  reader_->StopAt(absl::InfinitePast());
  LineReader::Line line;
  EXPECT_FALSE(reader_->Next(&line));
  EXPECT_EQ(reader_->status().code(), absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace quiver
