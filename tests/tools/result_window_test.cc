#include "tools/quiver/result_window.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;

InputItem Item(uint64_t index) {
  return {.index = index, .place = "", .id_json = "", .text = std::string()};
}

Embedding Tokens(int count) {
  Embedding embedding;
  embedding.token_count = count;
  return embedding;
}

// Remembers token counts, or error messages.
class RecordingSink : public EmbeddingSink {
 public:
  absl::Status Begin(int) override { return absl::OkStatus(); }
  absl::Status Put(const InputItem& item, const absl::StatusOr<Embedding>& result) override {
    EXPECT_EQ(item.index, seen.size());
    seen.push_back(result.ok() ? std::to_string(result->token_count)
                               : std::string(result.status().message()));
    return seen.size() == fail_at ? absl::DataLossError("full") : absl::OkStatus();
  }
  absl::Status Flush() override {
    if (!flushed.HasBeenNotified()) flushed.Notify();
    return absl::OkStatus();
  }

  std::vector<std::string> seen;
  absl::Notification flushed;
  size_t fail_at = 0;
};

TEST(ResultWindowTest, ResultsComeOutInTheOrderOfTheItems) {
  ResultWindow window;
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(window.Add(Item(i), 1));
  window.Complete(2, Tokens(12));
  window.Complete(0, Tokens(10));
  window.Complete(1, absl::InternalError("bad"));
  window.Close(absl::OkStatus());
  RecordingSink sink;
  EXPECT_TRUE(window.PutAll(&sink).ok());
  EXPECT_THAT(sink.seen, ElementsAre("10", "bad", "12"));
  EXPECT_FALSE(sink.flushed.HasBeenNotified());
}

TEST(ResultWindowTest, StrayAndSecondResultsAreIgnored) {
  ResultWindow window;
  ASSERT_TRUE(window.Add(Item(0), 1));
  window.Complete(1, Tokens(1));
  window.Complete(0, Tokens(2));
  window.Complete(0, Tokens(3));
  window.Close(absl::OkStatus());
  RecordingSink sink;
  EXPECT_TRUE(window.PutAll(&sink).ok());
  EXPECT_THAT(sink.seen, ElementsAre("2"));
}

TEST(ResultWindowTest, AddingWaitsForRoomInItemsAndInBytes) {
  ResultWindow window({.max_items = 2, .max_bytes = 10});
  EXPECT_TRUE(window.HasRoom(100));
  ASSERT_TRUE(window.Add(Item(0), 100));
  EXPECT_FALSE(window.HasRoom(0));
  absl::Notification added;
  std::thread producer([&] {
    EXPECT_TRUE(window.Add(Item(1), 4));
    EXPECT_TRUE(window.Add(Item(2), 4));
    added.Notify();
    EXPECT_TRUE(window.Add(Item(3), 1));
    window.Close(absl::OkStatus());
  });
  RecordingSink sink;
  window.Complete(0, Tokens(0));
  std::thread consumer([&] { EXPECT_TRUE(window.PutAll(&sink).ok()); });
  added.WaitForNotification();
  // Nothing is ready before the next result comes.
  sink.flushed.WaitForNotification();
  EXPECT_FALSE(window.HasRoom(1));
  for (uint64_t i = 1; i < 3; ++i) window.Complete(i, Tokens(static_cast<int>(i)));
  // The last one is let in now, and this result may come before it is.
  producer.join();
  window.Complete(3, Tokens(3));
  consumer.join();
  EXPECT_THAT(sink.seen, ElementsAre("0", "1", "2", "3"));
}

TEST(ResultWindowTest, FailingGivesPendingItemsAResultAndShutsTheDoor) {
  ResultWindow window;
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(window.Add(Item(i), 1));
  window.Complete(1, Tokens(1));
  window.Fail(absl::UnavailableError("gone"), absl::InternalError("lost"));
  EXPECT_FALSE(window.Add(Item(3), 1));
  RecordingSink sink;
  EXPECT_EQ(window.PutAll(&sink), absl::UnavailableError("gone"));
  EXPECT_THAT(sink.seen, ElementsAre("lost", "1", "lost"));
}

TEST(ResultWindowTest, ASinksErrorEndsIt) {
  ResultWindow window;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(window.Add(Item(i), 1));
    window.Complete(i, Tokens(0));
  }
  RecordingSink sink;
  sink.fail_at = 2;
  EXPECT_EQ(window.PutAll(&sink), absl::DataLossError("full"));
  EXPECT_EQ(sink.seen.size(), 2u);
}

}  // namespace
}  // namespace quiver
