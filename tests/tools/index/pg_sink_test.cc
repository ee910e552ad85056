// Of a PostgreSQL with pgvector whose URL QUIVER_TEST_POSTGRESQL has; postgresql_test.py starts
// one.
#include "tools/index/pg_sink.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/index/search_index.h"

namespace quiver::index {
namespace {

using ::testing::HasSubstr;

constexpr char kRun[] = R"({"input":"a","text":"{text}"})";
constexpr int kDimensions = 3;

class PgSinkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* url = std::getenv("QUIVER_TEST_POSTGRESQL");
    if (url == nullptr) GTEST_SKIP() << "QUIVER_TEST_POSTGRESQL is not set";
    url_ = url;
    table_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
    for (char& c : table_) c = static_cast<char>(std::tolower(c));
    auto connection = PgConnection::Open(url_);
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = *std::move(connection);
    ASSERT_TRUE(connection_->Run("DROP TABLE IF EXISTS " + table_).ok());
  }

  PgSink NewSink() const { return PgSink({.url = url_, .table = table_}); }

  static IndexSpace Space(const std::string& fingerprint = "space-a") {
    return {.model = "m",
            .space = {.fingerprint = fingerprint, .prompt_fingerprint = ""},
            .dimensions = kDimensions,
            .type = client::ElementType::kFloat32};
  }

  static absl::Status AppendRow(PgSink* sink, uint64_t i) {
    const float values[kDimensions] = {1, static_cast<float>(i), -2};
    client::Embedding embedding;
    embedding.data.assign(reinterpret_cast<const char*>(values), sizeof(values));
    embedding.dimensions = kDimensions;
    const std::string id = absl::StrCat("d", i);
    return sink->Append({.id = id,
                         .chunk = 0,
                         .begin = 0,
                         .end = 5,
                         .text = absl::string_view("te\0xt", 5),
                         .embedding = &embedding});
  }

  // Writes documents [from the checkpoint, `end`), committing every `step`.
  static absl::Status WriteUpTo(PgSink* sink, uint64_t end, uint64_t step) {
    absl::StatusOr<IndexSink::State> state = sink->Begin(Space(), kRun);
    if (!state.ok()) return state.status();
    uint64_t i = state->checkpoint.has_value() ? state->checkpoint->documents : 0;
    while (i < end) {
      const uint64_t stop = std::min(end, i + step);
      for (; i < stop; ++i) {
        if (absl::Status status = AppendRow(sink, i); !status.ok()) return status;
      }
      const Checkpoint checkpoint = {.documents = i, .rows = i, .rejects = 0, .run = kRun};
      if (absl::Status status = sink->Commit(checkpoint); !status.ok()) return status;
    }
    return sink->Finish();
  }

  uint64_t Count(const std::string& what) {
    const auto rows = connection_->Run(absl::StrCat("SELECT ", what, " FROM ", table_));
    EXPECT_TRUE(rows.ok()) << rows.status();
    return rows.ok() ? std::stoull(rows->At(0, 0)) : 0;
  }

  std::string url_;
  std::string table_;
  std::unique_ptr<PgConnection> connection_;
};

TEST_F(PgSinkTest, RowsAreFoundAsTheyWereWritten) {
  PgSink sink = NewSink();
  ASSERT_TRUE(WriteUpTo(&sink, 100, 40).ok());
  const auto rows =
      connection_->Run("SELECT id, chunk, begin_byte, end_byte, text, embedding FROM " + table_ +
                       " WHERE id = 'd7'");
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1);
  EXPECT_EQ(rows->At(0, 4), "te xt");
  EXPECT_EQ(rows->At(0, 3), "5");
  EXPECT_EQ(rows->At(0, 5), "[1,7,-2]");
  const auto index = connection_->Run(
      "SELECT 1 FROM pg_indexes WHERE tablename = $1 AND indexdef LIKE '%hnsw%'", {table_});
  EXPECT_EQ(index->size(), 1);

  const auto found = OpenPgIndex(url_, table_);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ((*found)->fingerprint(), "space-a");
  const auto hits = (*found)->Search({1.f, 7.f, -2.f}, 3);
  ASSERT_TRUE(hits.ok()) << hits.status();
  EXPECT_EQ((*hits)[0][0].id, "d7");
  EXPECT_NEAR((*hits)[0][0].score, 1, 1e-6);
}

TEST_F(PgSinkTest, AFinishedRunIsComplete) {
  PgSink first = NewSink();
  ASSERT_TRUE(WriteUpTo(&first, 10, 10).ok());
  { PgSink gone = std::move(first); }
  PgSink second = NewSink();
  const auto state = second.Begin(Space(), kRun);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_TRUE(state->complete);
  EXPECT_EQ(state->checkpoint->rows, 10);
}

TEST_F(PgSinkTest, WhatWasKilledWhileItWroteHasEveryIdOnceWhenItIsResumed) {
  constexpr uint64_t kRows = 60000, kStep = 3000;
  for (uint64_t kill_at = kStep; kill_at < kRows; kill_at += 5 * kStep) {
    const pid_t child = fork();
    if (child == 0) {
      PgSink sink = NewSink();
      _exit(WriteUpTo(&sink, kRows, kStep).ok() ? 0 : 1);
    }
    // Until it has come so far; the next transaction is then being copied.
    uint64_t documents = 0;
    while (documents < kill_at && waitpid(child, nullptr, WNOHANG) == 0) {
      const auto rows = connection_->Run(
          "SELECT documents FROM quiver_runs WHERE table_name = $1 AND "
          "to_regclass($1) IS NOT NULL",
          {table_});
      if (rows.ok() && rows->size() == 1) documents = std::stoull(rows->At(0, 0));
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_EQ(Count("count(*)") % kStep, 0);
  }
  PgSink sink = NewSink();
  const absl::Status status = WriteUpTo(&sink, kRows, kStep);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(Count("count(*)"), kRows);
  EXPECT_EQ(Count("count(DISTINCT id)"), kRows);
}

TEST_F(PgSinkTest, ALostConnectionLosesAndDoublesNothing) {
  PgSink sink = NewSink();
  const auto state = sink.Begin(Space(), kRun);
  ASSERT_TRUE(state.ok()) << state.status();
  for (uint64_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(AppendRow(&sink, i).ok());
    if (i % 10 != 9) continue;
    ASSERT_TRUE(connection_
                    ->Run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                          "WHERE application_name = 'quiver' AND pid <> pg_backend_pid()")
                    .ok());
    const absl::Status status =
        sink.Commit({.documents = i + 1, .rows = i + 1, .rejects = 0, .run = kRun});
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(Count("count(*)"), 50);
  EXPECT_EQ(Count("count(DISTINCT id)"), 50);
}

TEST_F(PgSinkTest, AnotherRunOrSpaceIsRefusedByName) {
  {
    PgSink sink = NewSink();
    ASSERT_TRUE(WriteUpTo(&sink, 10, 10).ok());
  }
  PgSink other_run = NewSink();
  EXPECT_THAT(other_run.Begin(Space(), R"({"input":"a","text":"{title}"})").status().message(),
              HasSubstr("text was \"{text}\", is \"{title}\""));
  PgSink other_space = NewSink();
  const auto refused = other_space.Begin(Space("space-b"), R"({"input":"b"})");
  EXPECT_THAT(refused.status().message(), HasSubstr("space-a"));
  EXPECT_THAT(refused.status().message(), HasSubstr("space-b"));
}

TEST_F(PgSinkTest, ATableOfOtherColumnsIsRefused) {
  ASSERT_TRUE(connection_->Run("CREATE TABLE " + table_ + " (id text, chunk integer)").ok());
  PgSink sink = NewSink();
  EXPECT_THAT(sink.Begin(Space(), kRun).status().message(),
              HasSubstr("column begin_byte must be bigint"));
}

TEST_F(PgSinkTest, APasswordIsNotInErrors) {
  for (const char* url :
       {"postgresql://u:secret@127.0.0.1:1/d", "postgresql://u:secret@h:x/d?bad=secret"}) {
    const auto connection = PgConnection::Open(url);
    ASSERT_FALSE(connection.ok());
    EXPECT_THAT(connection.status().message(), ::testing::Not(HasSubstr("secret")));
  }
}

}  // namespace
}  // namespace quiver::index
