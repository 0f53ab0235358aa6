#include "comm/bucket_tuner.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/comm/on_every_backend.h"

namespace deeper {
namespace {

// Milliseconds of a step on one rank, by bucket size. Each rank alone would prefer a size that is slow on
// another rank. Size 4 is the favourite of none, but the best for the slowest rank.
double StepTime(int rank, size_t bytes) {
  if (bytes == 4) return 10;
  return bytes == (rank % 2 == 0 ? 2u : 8u) ? 5 : 20;
}

TEST_P(OnEveryBackend, TheSlowestRankDecidesAboutBuckets) {
  OnEachRank([](Communicator& comm) {
    BucketTuner tuner(comm, {2, 4, 8});
    for (const size_t bytes : {2u, 4u, 8u}) {
      for (int step = 0; step < BucketTuner::kStepsEach; ++step) {
        EXPECT_FALSE(tuner.done());
        EXPECT_EQ(tuner.bucket_bytes(), bytes);
        // The fastest step counts: all steps but one are slowed down.
        tuner.Observe(StepTime(comm.rank(), bytes) + (step == 1 ? 0 : 100));
      }
    }
    EXPECT_TRUE(tuner.done());
    EXPECT_EQ(tuner.bucket_bytes(), comm.size() == 1 ? 2u : 4u);
  });
}

}  // namespace
}  // namespace deeper
