#include "server/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/access_log.h"

namespace quiver {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kTime = absl::FromUnixMicros(1'764'031'807'123'456);

// A pipe whose reading end may be left alone.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe(fds_), 0); }
  ~Pipe() {
    close(fds_[0]);
    CloseWriter();
  }
  int writer() const { return fds_[1]; }
  void CloseWriter() {
    if (fds_[1] >= 0) close(fds_[1]);
    fds_[1] = -1;
  }
  // Until the writer is closed.
  std::string ReadAll() {
    std::string text;
    char bytes[4096];
    ssize_t got;
    while ((got = read(fds_[0], bytes, sizeof(bytes))) > 0) {
      text.append(bytes, static_cast<size_t>(got));
    }
    return text;
  }

 private:
  int fds_[2] = {-1, -1};
};

TEST(FormatLogLine, TextHasTimeLevelMessageAndFields) {
  EXPECT_EQ(FormatLogLine(LogFormat::kText, kTime, LogLevel::kInfo, "serving",
                          {{"model", "mini"},
                           {"port", 50051},
                           {"seconds", absl::Milliseconds(1500)},
                           {"ready", true}}),
            "2025-11-25T00:50:07.123456Z INFO serving model=mini port=50051 seconds=1.5 "
            "ready=true\n");
}

TEST(FormatLogLine, JsonIsJsonWhateverTheValues) {
  const std::string nasty = "a\"b\\c\n\x01 \xff\xfe \xe4\xbd\xa0";
  const std::string line =
      FormatLogLine(LogFormat::kJson, kTime, LogLevel::kError, "failed",
                    {{"what", nasty}, {"ratio", 0.0 / 0.0}, {"count", int64_t{1} << 40}});
  const nlohmann::json json = nlohmann::json::parse(line);
  EXPECT_EQ(json["time"], "2025-11-25T00:50:07.123456Z");
  EXPECT_EQ(json["level"], "error");
  EXPECT_EQ(json["message"], "failed");
  EXPECT_EQ(json["what"], "a\"b\\c\n\x01 \xef\xbf\xbd\xef\xbf\xbd \xe4\xbd\xa0");
  EXPECT_TRUE(json["ratio"].is_null());
  EXPECT_EQ(json["count"], int64_t{1} << 40);
}

TEST(FormatLogLine, ValueCannotForgeALineOrAField) {
  for (const char* value : {"a\nb", "a b=c", "a\"", "a\\", "", "\x1b[31m", "\xc2\x9b", "\xff"}) {
    const std::string line = FormatLogLine(LogFormat::kText, kTime, LogLevel::kInfo, "m",
                                           {{"k", std::string(value)}, {"next", 1}});
    EXPECT_EQ(line.find('\n'), line.size() - 1) << line;
    EXPECT_THAT(line, HasSubstr(" m k=\"")) << line;
    EXPECT_THAT(line, HasSubstr("\" next=1\n"));
    for (char c : line) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << line;
  }
}

TEST(Logger, LevelsBelowTheLeastAreLeftOut) {
  Pipe pipe;
  {
    Logger logger({LogFormat::kText, LogLevel::kWarning, pipe.writer()});
    logger.Info("quiet");
    logger.Warning("loud");
  }
  pipe.CloseWriter();
  const std::string text = pipe.ReadAll();
  EXPECT_THAT(text, Not(HasSubstr("quiet")));
  EXPECT_THAT(text, HasSubstr("WARNING loud\n"));
}

TEST(Logger, LinesOfManyThreadsStayWhole) {
  Pipe pipe;
  std::string text;
  std::thread reader([&] { text = pipe.ReadAll(); });
  {
    Logger logger({LogFormat::kJson, LogLevel::kInfo, pipe.writer()});
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&logger, t] {
        for (int i = 0; i < 500; ++i) logger.Info("line", {{"thread", t}, {"i", i}});
      });
    }
    for (std::thread& thread : threads) thread.join();
    logger.Flush(absl::Seconds(20));
  }
  pipe.CloseWriter();
  reader.join();
  std::vector<int> next(4, 0);
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const nlohmann::json json = nlohmann::json::parse(line);
    EXPECT_EQ(json["i"], next[json["thread"]]++);
  }
  EXPECT_EQ(next, std::vector<int>(4, 500));
}

TEST(Logger, ReaderWhoStopsReadingStopsNobody) {
  Pipe pipe;
  {
    Logger logger({LogFormat::kText, LogLevel::kInfo, pipe.writer()});
    const std::string filler(1000, 'x');
    // Far more than the pipe and the buffer hold; returns all the same, as does the destructor.
    for (size_t i = 0; i < 3 * Logger::kMaxPending / filler.size(); ++i) {
      logger.Info("filler", {{"text", filler}});
    }
  }
  pipe.CloseWriter();
  EXPECT_THAT(pipe.ReadAll(), HasSubstr(" INFO filler text=x"));
}

TEST(Logger, DroppedLinesAreCounted) {
  Pipe pipe;
  std::string text;
  {
    Logger logger({LogFormat::kText, LogLevel::kInfo, pipe.writer()});
    const std::string filler(1000, 'x');
    for (size_t i = 0; i < 3 * Logger::kMaxPending / filler.size(); ++i) {
      logger.Info("filler", {{"text", filler}});
    }
    std::thread reader([&] { text = pipe.ReadAll(); });
    logger.Flush(absl::Seconds(20));
    pipe.CloseWriter();
    reader.join();
  }
  EXPECT_THAT(text, HasSubstr("WARNING log lines dropped: stderr is not read fast enough lines="));
}

class CountingObserver : public RequestObserver {
 public:
  void OnRequestStart(Rpc) override { ++starts; }
  void OnItems(Rpc, Lane, const ItemCounts&) override { ++items; }
  void OnRequestEnd(const RequestReport&) override { ++ends; }
  int starts = 0;
  int items = 0;
  int ends = 0;
};

TEST(AccessLog, LogsEachRequestAndPassesItOn) {
  Pipe pipe;
  CountingObserver next;
  {
    Logger logger({LogFormat::kJson, LogLevel::kInfo, pipe.writer()});
    AccessLog log(&logger, &next);
    log.OnRequestStart(Rpc::kEmbed);
    log.OnItems(Rpc::kEmbed, Lane::kBulk, ItemCounts());
    RequestReport report;
    report.lane = Lane::kBulk;
    report.code = absl::StatusCode::kInvalidArgument;
    report.succeeded = 3;
    report.total = absl::Milliseconds(12);
    report.peer = "ipv4:127.0.0.1:5";
    report.tenant = "a tenant";
    report.trace.trace_id = {1, 2, 3};
    report.trace.span_id = {4, 5, 6};
    log.OnRequestEnd(report);
  }
  pipe.CloseWriter();
  const nlohmann::json json = nlohmann::json::parse(pipe.ReadAll());
  EXPECT_EQ(json["rpc"], "Embed");
  EXPECT_EQ(json["lane"], "bulk");
  EXPECT_EQ(json["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(json["succeeded"], 3);
  EXPECT_EQ(json["total_seconds"], 0.012);
  EXPECT_EQ(json["peer"], "ipv4:127.0.0.1:5");
  EXPECT_EQ(json["route"], "quiver.v1.EmbedService/Embed");
  EXPECT_EQ(json["http_status"], 0);
  EXPECT_EQ(json["tenant"], "a tenant");
  EXPECT_EQ(json["trace_id"], "01020300000000000000000000000000");
  EXPECT_EQ(json["span_id"], "0405060000000000");
  EXPECT_EQ(json["sampled"], false);
  EXPECT_EQ(next.starts, 1);
  EXPECT_EQ(next.items, 1);
  EXPECT_EQ(next.ends, 1);
}

TEST(AccessLog, LogsWhatWasRefused) {
  Pipe pipe;
  CountingObserver next;
  {
    Logger logger({LogFormat::kJson, LogLevel::kInfo, pipe.writer()});
    AccessLog log(&logger, &next);
    log.OnRefusal({.peer = "127.0.0.1:5",
                   .method = "GET",
                   .path = "/" + std::string(10'000, 'x'),
                   .status = 404});
  }
  pipe.CloseWriter();
  const nlohmann::json json = nlohmann::json::parse(pipe.ReadAll());
  EXPECT_EQ(json["http_status"], 404);
  EXPECT_EQ(json["method"], "GET");
  EXPECT_EQ(json["path"].get<std::string>().size(), 200u);
  EXPECT_EQ(json["peer"], "127.0.0.1:5");
  EXPECT_EQ(next.ends, 0);
}

}  // namespace
}  // namespace quiver
