#include "engine/run/cuda/matmul_cache.h"

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

constexpr char kIdentity[] = "NVIDIA H200 sm_90 driver 13000 cublaslt 130100 bf16";

TEST(MatmulCacheTest, WhatWasSavedIsFoundAgain) {
  const std::string path = TestDir("matmul_cache") + "/deep/folder/cache.txt";
  MatmulCache cache = MatmulCache::Load(path, kIdentity);
  EXPECT_FALSE(cache.changed());
  const MatmulKey key = {6144, 2560, 2560, 6144, 512};
  const MatmulKey other = {6144, 2560, 2560, 6144, 768};
  const MatmulAlgorithm algorithm = {1, 0xffffffffffffffff, 3, 4, 5, 6, 7, 0x8000000000000000};
  cache.Put(key, algorithm);
  EXPECT_TRUE(cache.changed());
  ASSERT_TRUE(cache.Save(path).ok());

  const MatmulCache loaded = MatmulCache::Load(path, kIdentity);
  EXPECT_EQ(loaded.Find(key), algorithm);
  EXPECT_EQ(loaded.Find(other), std::nullopt);
  EXPECT_FALSE(loaded.changed());
  // Nothing is left beside it.
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(path).parent_path())) {
    (void)entry;
    ++files;
  }
  EXPECT_EQ(files, 1);
}

TEST(MatmulCacheTest, AnotherIdentityOrADamagedFileCountsAsEmpty) {
  const std::string path = TestDir("matmul_cache_damaged") + "/cache.txt";
  const MatmulKey key = {1, 2, 3, 4, 16};
  MatmulCache cache = MatmulCache::Load(path, kIdentity);
  cache.Put(key, {});
  ASSERT_TRUE(cache.Save(path).ok());
  const std::string bytes = ReadFile(path);
  EXPECT_TRUE(MatmulCache::Load(path, kIdentity).Find(key).has_value());
  EXPECT_FALSE(MatmulCache::Load(path, "another card").Find(key).has_value());
  WriteFile(path, bytes + "6144 2560\n");
  EXPECT_FALSE(MatmulCache::Load(path, kIdentity).Find(key).has_value());
  WriteFile(path, "something else\n" + bytes);
  EXPECT_FALSE(MatmulCache::Load(path, kIdentity).Find(key).has_value());
  WriteFile(path, "");
  EXPECT_FALSE(MatmulCache::Load(path, kIdentity).Find(key).has_value());
}

TEST(MatmulCacheTest, AFolderThatCannotBeWrittenIsAnError) {
  MatmulCache cache = MatmulCache::Load("", kIdentity);
  EXPECT_FALSE(cache.Save("/proc/none/cache.txt").ok());
}

TEST(MatmulCacheTest, BucketsAreALadderThatHoldsItsOwnRungs) {
  EXPECT_EQ(MatmulRowBucket(1), 16);
  EXPECT_EQ(MatmulRowBucket(17), 32);
  EXPECT_EQ(MatmulRowBucket(65), 96);
  EXPECT_EQ(MatmulRowBucket(4097), 6144);
  int64_t rung = 16;
  for (int i = 0; i < 25; ++i) {
    EXPECT_EQ(MatmulRowBucket(rung), rung);
    EXPECT_EQ(MatmulRowBucket(rung + 1), NextMatmulRowBucket(rung));
    rung = NextMatmulRowBucket(rung);
  }
}

TEST(MatmulCacheTest, FilesOfTwoCardsHaveTwoNames) {
  const std::string path = MatmulCachePath("/cache", kIdentity);
  EXPECT_THAT(path, testing::StartsWith("/cache/matmul-"));
  EXPECT_THAT(path, testing::Not(testing::HasSubstr(" ")));
  EXPECT_NE(path, MatmulCachePath("/cache", "NVIDIA H100 sm_90 driver 13000 cublaslt 130100 bf16"));
}

}  // namespace
}  // namespace quiver
