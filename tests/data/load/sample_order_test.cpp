#include "data/load/sample_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace deeper {
namespace {

std::vector<int64_t> Samples(OrderKind kind, int64_t samples, uint64_t seed, uint32_t epoch) {
  const SampleOrder order(kind, samples, seed, epoch);
  std::vector<int64_t> result;
  for (int64_t i = 0; i < samples; ++i) result.push_back(order.At(i));
  return result;
}

int64_t Agreements(const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i] == b[i];
  return count;
}

TEST(SampleOrder, IsAPermutationOfAnyNumberOfSamples) {
  for (const OrderKind kind : {OrderKind::kFull, OrderKind::kBlock}) {
    for (const int64_t samples : {1, 2, 3, 4, 5, 10, 128, 129, 1000, 16384, 60000}) {
      std::vector<int64_t> sorted = Samples(kind, samples, 7, 3);
      std::sort(sorted.begin(), sorted.end());
      std::vector<int64_t> all(samples);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(sorted, all) << samples;
    }
  }
}

TEST(SampleOrder, AWindowOfBlocksIsReadFromWholeBlocks) {
  constexpr int64_t kSamples = 3 * kWindowSamples + 1000;
  const std::vector<int64_t> order = Samples(OrderKind::kBlock, kSamples, 7, 3);
  int64_t in_order = 0;
  std::set<int64_t> first_blocks;
  for (int64_t begin = 0; begin < kSamples; begin += kWindowSamples) {
    const int64_t end = std::min(begin + kWindowSamples, kSamples);
    std::set<int64_t> blocks;
    for (int64_t i = begin; i < end; ++i) {
      blocks.insert(order[i] / kBlockSamples);
      in_order += i > begin && order[i] == order[i - 1] + 1;
    }
    EXPECT_EQ(std::ssize(blocks), (end - begin + kBlockSamples - 1) / kBlockSamples);
    if (std::ssize(blocks) == kWindowSamples / kBlockSamples) first_blocks.insert(*blocks.begin());
  }
  EXPECT_LT(in_order, 20);  // about one of a random permutation
  EXPECT_LT(*first_blocks.rbegin(), 40) << "a window's blocks come from all over the split";
}

TEST(SampleOrder, ReadsEachBlockAheadOnceBeforeItsWindow) {
  constexpr int64_t kSamples = 2 * kWindowSamples + 1000;
  const SampleOrder order(OrderKind::kBlock, kSamples, 7, 3);
  std::vector<int> ahead(kSamples);
  for (int64_t i = 0; i < kSamples; ++i) {
    if (i >= kWindowSamples) {
      EXPECT_EQ(ahead[order.At(i)], 1) << i;
    }
    const Slice block = order.ReadAhead(i);
    for (int64_t sample = block.begin; sample < block.end; ++sample) ++ahead[sample];
  }
  EXPECT_EQ(std::accumulate(ahead.begin(), ahead.end(), int64_t{0}), kSamples - kWindowSamples);
  EXPECT_EQ(SampleOrder(OrderKind::kFull, kSamples, 7, 3).ReadAhead(0).size(), 0);
}

TEST(SampleOrder, SequentialIsTheIdentity) {
  EXPECT_THAT(Samples(OrderKind::kSequential, 4, 7, 3), testing::ElementsAre(0, 1, 2, 3));
}

// Two random permutations agree in about one place.
TEST(SampleOrder, ChangesWithEpochAndSeed) {
  const std::vector<int64_t> order = Samples(OrderKind::kFull, 1000, 1, 0);
  EXPECT_EQ(order, Samples(OrderKind::kFull, 1000, 1, 0));
  EXPECT_LT(Agreements(order, Samples(OrderKind::kFull, 1000, 1, 1)), 12);
  EXPECT_LT(Agreements(order, Samples(OrderKind::kFull, 1000, 2, 0)), 12);
  EXPECT_LT(Agreements(order, Samples(OrderKind::kSequential, 1000, 1, 0)), 12);
  const std::vector<int64_t> blocks = Samples(OrderKind::kBlock, 1000, 1, 0);
  EXPECT_LT(Agreements(blocks, Samples(OrderKind::kBlock, 1000, 1, 1)), 12);
  EXPECT_LT(Agreements(blocks, Samples(OrderKind::kBlock, 1000, 2, 0)), 12);
}

TEST(SampleOrder, EverySampleComesFirstEquallyOften) {
  constexpr int kSamples = 10, kEpochs = 4000;
  std::vector<int> first(kSamples);
  for (uint32_t epoch = 0; epoch < kEpochs; ++epoch)
    ++first[SampleOrder(OrderKind::kFull, kSamples, 5, epoch).At(0)];
  for (const int count : first) EXPECT_NEAR(count, kEpochs / kSamples, 100);  // five standard deviations
}

// Runs that resume from checkpoints of older versions need the same order of data.
TEST(SampleOrder, NeverChangesBetweenVersions) {
  std::vector<int64_t> order = Samples(OrderKind::kFull, 1000, 42, 3);
  order.resize(6);
  EXPECT_THAT(order, testing::ElementsAre(489, 807, 951, 540, 163, 37));
  order = Samples(OrderKind::kBlock, 40000, 42, 3);
  order.resize(6);
  EXPECT_THAT(order, testing::ElementsAre(28818, 11107, 25629, 6570, 7986, 10263));
}

TEST(RankSlice, TilesEveryGlobalBatchInRankOrder) {
  for (const int64_t samples : {1, 7, 100}) {
    for (const int64_t global_batch : {8, 13, 101}) {
      for (const int world : {1, 2, 3, 5, 8}) {
        int64_t expected = 0;
        for (int64_t batch = 0; batch < BatchesPerEpoch(samples, global_batch); ++batch) {
          for (int rank = 0; rank < world; ++rank) {
            const Slice slice = RankSlice(samples, global_batch, batch, rank, world);
            EXPECT_EQ(slice.begin, expected);
            EXPECT_GE(slice.size(), 0);
            EXPECT_LE(slice.size(), (global_batch + world - 1) / world);
            expected = slice.end;
          }
          EXPECT_EQ(expected, std::min(samples, (batch + 1) * global_batch));
        }
        EXPECT_EQ(expected, samples);
      }
    }
  }
}

}  // namespace
}  // namespace deeper
