#include "engine/run/cuda/expanded_weights.h"

#include <gtest/gtest.h>

namespace quiver {
namespace {

class ExpandedWeightsTest : public testing::Test {
 protected:
  // Whether it was there.
  bool Take(int weight, int64_t bytes, int64_t room) {
    return weights_.Take(&names_[weight], bytes, room).is_made;
  }
  ExpandedWeights weights_;
  char names_[8] = {};
};

TEST_F(ExpandedWeightsTest, AllOfALayerAreFoundAgainWhereThereIsRoomForThem) {
  for (int chunk = 0; chunk < 3; ++chunk) {
    EXPECT_EQ(Take(0, 1000, 4096), chunk > 0);
    EXPECT_EQ(Take(1, 1024, 4096), chunk > 0);
    EXPECT_EQ(Take(2, 2048, 4096), chunk > 0);
  }
}

TEST_F(ExpandedWeightsTest, TheNextLayerTakesTheRoomOfTheOneBefore) {
  for (int layer = 0; layer < 4; ++layer) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      EXPECT_EQ(Take(2 * layer, 1024, 2048), chunk > 0);
      EXPECT_EQ(Take(2 * layer + 1, 1024, 2048), chunk > 0);
    }
  }
  EXPECT_FALSE(Take(0, 1024, 2048));
}

TEST_F(ExpandedWeightsTest, WhereThereIsRoomForOneEachIsMadeAnew) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(Take(0, 1024, 1500));
    EXPECT_FALSE(Take(1, 1500, 1500));
  }
}

TEST_F(ExpandedWeightsTest, PlacesAreAlignedAndDoNotOverlapWhatIsFound) {
  const ExpandedWeights::Place first = weights_.Take(&names_[0], 1000, 4096);
  const ExpandedWeights::Place second = weights_.Take(&names_[1], 1000, 4096);
  EXPECT_EQ(first.offset, 0);
  EXPECT_EQ(second.offset, 1024);
  // Round to the begin, over the first but not the second.
  EXPECT_EQ(weights_.Take(&names_[2], 2100, 4096).offset, 0);
  EXPECT_FALSE(Take(0, 1000, 4096));
}

TEST_F(ExpandedWeightsTest, AnotherFormAndLessRoomAreNotWhatWasMade) {
  EXPECT_FALSE(Take(0, 1024, 4096));
  EXPECT_FALSE(Take(0, 2048, 4096));
  EXPECT_TRUE(Take(0, 2048, 4096));
  weights_.Forget();
  EXPECT_FALSE(Take(0, 2048, 4096));
  EXPECT_FALSE(Take(1, 1024, 4096));
  EXPECT_FALSE(Take(1, 1024, 1024));
}

}  // namespace
}  // namespace quiver
