// Which beginnings are kept, and what becomes of the tokens that need not be computed.
#include "engine/schedule/prefix_cache.h"

#include <set>

#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;

// `shared` ids that begin with `head`, and `own` others that end with `tail`.
std::vector<TokenId> Text(int shared, TokenId head, int own, TokenId tail) {
  std::vector<TokenId> ids(static_cast<size_t>(shared), 7);
  ids[0] = head;
  ids.insert(ids.end(), static_cast<size_t>(own), tail);
  return ids;
}

std::shared_ptr<const PrefixCache::Hold> Store(PrefixCache* cache, std::vector<TokenId> ids) {
  auto hold = cache->Add(ids);
  if (hold != nullptr) hold->Stored();
  return hold;
}

int Reused(PrefixCache* cache, const std::vector<TokenId>& ids) {
  const auto hold = cache->Find(ids);
  return hold == nullptr ? 0 : hold->use().reused();
}

TEST(PrefixCacheTest, TheLongestCommonBeginningIsReused) {
  PrefixCache cache(100);
  Store(&cache, Text(30, 1, 0, 0));
  Store(&cache, Text(20, 2, 0, 0));
  EXPECT_EQ(Reused(&cache, Text(30, 1, 12, 50)), 30);
  EXPECT_EQ(Reused(&cache, Text(20, 1, 12, 50)), 20);
  EXPECT_EQ(Reused(&cache, Text(20, 2, 12, 50)), 20);
  EXPECT_EQ(Reused(&cache, Text(20, 3, 12, 50)), 0);
}

TEST(PrefixCacheTest, AFewTokensAreNotWorthIt) {
  PrefixCache cache(100);
  Store(&cache, Text(30, 1, 0, 0));
  EXPECT_EQ(Reused(&cache, Text(7, 1, 12, 50)), 0);
  EXPECT_EQ(Reused(&cache, Text(8, 1, 12, 50)), 8);
  EXPECT_EQ(cache.Add(Text(7, 9, 0, 0)), nullptr);
}

TEST(PrefixCacheTest, OneTokenAtLeastIsComputed) {
  PrefixCache cache(100);
  Store(&cache, Text(30, 1, 0, 0));
  EXPECT_EQ(Reused(&cache, Text(30, 1, 0, 0)), 29);
  EXPECT_EQ(Reused(&cache, Text(9, 1, 0, 0)), 8);
}

TEST(PrefixCacheTest, WhatIsNotStoredYetIsStoredByTheFirstWhoComes) {
  PrefixCache cache(100);
  cache.Add(Text(30, 1, 0, 0)).reset();
  auto first = cache.Find(Text(30, 1, 5, 50));
  ASSERT_NE(first, nullptr);
  EXPECT_TRUE(first->use().store);
  EXPECT_EQ(first->use().length, 30);
  EXPECT_EQ(cache.Find(Text(30, 1, 5, 51)), nullptr);
  // It was given up: the next one tries.
  first.reset();
  first = cache.Find(Text(30, 1, 5, 52));
  ASSERT_NE(first, nullptr);
  EXPECT_TRUE(first->use().store);
  first->Stored();
  EXPECT_EQ(Reused(&cache, Text(30, 1, 5, 53)), 30);
}

TEST(PrefixCacheTest, ABeginningThatRepeatsIsFound) {
  PrefixCache cache(100);
  for (TokenId i = 0; i < 4; ++i) {
    EXPECT_EQ(cache.Find(Text(30, 1, 12, 100 + i)), nullptr);
    EXPECT_EQ(cache.Find(Text(30, 1000 + i, 12, 100)), nullptr);
  }
  const auto hold = cache.Find(Text(30, 1, 12, 200));
  ASSERT_NE(hold, nullptr);
  EXPECT_TRUE(hold->use().store);
  EXPECT_EQ(hold->use().length, 30);
}

TEST(PrefixCacheTest, ALongerBeginningThanTheKeptOneIsFound) {
  PrefixCache cache(200);
  Store(&cache, Text(10, 1, 0, 0));
  for (TokenId i = 0; i < 4; ++i) EXPECT_EQ(Reused(&cache, Text(40, 1, 5, 100 + i)), 10);
  const auto hold = cache.Find(Text(40, 1, 5, 200));
  ASSERT_NE(hold, nullptr);
  EXPECT_EQ(hold->use().length, 40);
}

TEST(PrefixCacheTest, TheLeastRecentlyUsedGoesUnlessItIsHeld) {
  PrefixCache cache(60);
  Store(&cache, Text(30, 1, 0, 0));
  Store(&cache, Text(30, 2, 0, 0));
  EXPECT_EQ(Reused(&cache, Text(30, 1, 1, 9)), 30);
  Store(&cache, Text(20, 3, 0, 0));
  EXPECT_EQ(Reused(&cache, Text(30, 2, 1, 9)), 0);
  const auto one = cache.Find(Text(30, 1, 1, 9));
  const auto three = cache.Find(Text(20, 3, 1, 9));
  EXPECT_EQ(cache.Add(Text(30, 4, 0, 0)), nullptr);
  EXPECT_EQ(Reused(&cache, Text(30, 1, 1, 9)), 30);
}

TEST(PrefixCacheTest, RowsAreNeverThoseOfAnother) {
  PrefixCache cache(64);
  std::vector<std::shared_ptr<const PrefixCache::Hold>> held;
  uint32_t random = 1;
  for (int i = 0; i < 2000; ++i) {
    random = random * 1664525 + 1013904223;
    auto hold = Store(&cache, Text(8 + static_cast<int>(random >> 28), i + 100, 0, 0));
    if (hold != nullptr) held.push_back(std::move(hold));
    if (held.size() > 3) held.erase(held.begin() + (random >> 20) % 4);
    std::set<int> rows;
    size_t total = 0;
    for (const auto& one : held) {
      const PrefixUse use = one->use();
      ASSERT_LE(use.row + use.length, 64);
      for (int row = use.row; row < use.row + use.length; ++row) rows.insert(row);
      total += static_cast<size_t>(use.length);
    }
    ASSERT_EQ(rows.size(), total);
  }
}

TEST(PrefixReuseTest, OnlyComputedTokensCountAndTheVectorIsOfAll) {
  Rig rig({.prefix_tokens = 100, .token_us = 10});
  rig.prefixes->Add(Text(30, 1, 0, 0)).reset();
  Sent& first = rig.Send({.ids = Text(30, 1, 12, 50)});
  rig.RunAll();
  rig.Send({.ids = Text(30, 1, 12, 51)});
  Sent& last = rig.Send({.ids = Text(30, 1, 12, 52)});
  EXPECT_EQ(rig.Snapshot().lanes[0].tokens, 24);
  rig.RunAll();
  EXPECT_EQ(first.code(), StatusCode::kOk);
  EXPECT_EQ(last.code(), StatusCode::kOk);
  const auto batches = rig.observer.batches();
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[0].tokens, 42);
  EXPECT_EQ(batches[0].prefix_hits, 0);
  EXPECT_EQ(batches[1].tokens, 24);
  EXPECT_EQ(batches[1].prefix_hits, 2);
  EXPECT_EQ(batches[1].prefix_tokens, 60);
}

TEST(PrefixReuseTest, WhoWasCancelledBeforeItsPassEndedStoredNothing) {
  Rig rig({.prefix_tokens = 100, .token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
  rig.prefixes->Add(Text(30, 1, 0, 0)).reset();
  auto flag = std::make_shared<CancellationFlag>();
  rig.Send({.cancellation = flag, .ids = Text(30, 1, 12, 50)});
  rig.Send();
  rig.Turn();
  rig.Turn();
  flag->Cancel();
  rig.RunAll();
  Sent& next = rig.Send({.ids = Text(30, 1, 12, 51)});
  rig.RunAll();
  rig.Send({.ids = Text(30, 1, 12, 52)});
  rig.RunAll();
  EXPECT_EQ(next.code(), StatusCode::kOk);
  EXPECT_EQ(rig.observer.batches().back().prefix_hits, 1);
}

}  // namespace
}  // namespace quiver
