#include "trainer/scaling/scaling_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace deeper {
namespace {

constexpr double kMB = 1e6;

Cluster Fast() {
  return {.ranks_per_node = 8,
          .within = {.latency_us = 5, .bytes_per_second = 100e9},
          .across = {.latency_us = 20, .bytes_per_second = 10e9}};
}

// `count` pieces of `floats`, done at even distances in backward.
RankStep Even(size_t count, size_t floats) {
  RankStep step = {.batch = 32, .forward_ms = 50, .backward_ms = 100, .update_ms = 2};
  for (size_t i = 0; i < count; ++i) {
    step.pieces.push_back({i * floats, floats});
    step.ready.push_back(static_cast<double>(i + 1) / static_cast<double>(count));
  }
  return step;
}

TEST(ScalingModel, AllReducesCostWhatTheirFormulasSay) {
  const Cluster c = Fast();
  using enum AllReduceAlgorithm;
  // 4 ranks of a node, 4 MB: 6 rounds of 5 us + 1 MB / 100 GB/s; halving and doubling: 2 (2 x 5 us + 3 MB).
  EXPECT_NEAR(AllReduceMs(kRing, c, 4, 4 * kMB), 6 * (0.005 + 0.01), 1e-9);
  EXPECT_NEAR(AllReduceMs(kTree, c, 4, 4 * kMB), 2 * (0.010 + 0.03), 1e-9);
  EXPECT_NEAR(AllReduceMs(kHierarchical, c, 4, 4 * kMB), AllReduceMs(kRing, c, 4, 4 * kMB), 1e-9);
  // 32 ranks on 4 nodes, 32 MB: the slowest link sets the pace of the ring.
  EXPECT_NEAR(AllReduceMs(kRing, c, 32, 32 * kMB), 62 * (0.020 + 0.1), 1e-9);
  EXPECT_NEAR(AllReduceMs(kTree, c, 32, 32 * kMB), 2 * (3 * 0.005 + 0.28 + 2 * 0.020 + 2.4), 1e-9);
  EXPECT_NEAR(AllReduceMs(kHierarchical, c, 32, 32 * kMB), 2 * (7 * 0.005 + 0.28 + 3 * 0.020 + 2.4), 1e-9);
  EXPECT_DOUBLE_EQ(AllReduceMs(kBest, c, 32, 32 * kMB), AllReduceMs(kTree, c, 32, 32 * kMB));
  // 24 ranks are not a power of two: the tree sends everything once more, both ways.
  EXPECT_NEAR(AllReduceMs(kTree, c, 24, kMB),
              2 * (3 * 0.005 + 0.00875 + 2 * 0.020 + 0.1 * 2 / 3 + 0.020 + 0.1), 1e-9);
  EXPECT_EQ(AllReduceMs(kRing, c, 1, kMB), 0);
}

TEST(ScalingModel, WhatIsLeftOfTheLastBucketIsExposed) {
  // 10 pieces of 1 MB, each its own bucket, 10 ms apart; 2 ranks on 2 nodes: 2 (20 us + 0.5 MB / 10 GB/s).
  Cluster c = Fast();
  c.ranks_per_node = 1;
  const Exchange each = {AllReduceAlgorithm::kRing, /*bucket_bytes=*/1};
  const RankStep step = Even(10, 250000);
  EXPECT_NEAR(Predict(step, c, each, 2).comm_exposed_ms, 0.14, 1e-6);
  EXPECT_NEAR(Predict(step, c, each, 2).step_ms, 152.14, 1e-6);
  // In one bucket nothing is hidden.
  const Exchange one = {AllReduceAlgorithm::kRing, size_t{1} << 30};
  EXPECT_NEAR(Predict(step, c, one, 2).comm_exposed_ms, 0.04 + 1.0, 1e-6);
  // A channel that is slower than backward: it starts after 10 ms and is then busy for all ten.
  c.across.bytes_per_second = 50e6;
  EXPECT_NEAR(Predict(step, c, each, 2).comm_exposed_ms, 10 + 10 * 20.04 - 100, 1e-6);
  // Half the bytes, half the time.
  EXPECT_NEAR(Predict(step, c, {AllReduceAlgorithm::kRing, 1, 0.5}, 2).comm_exposed_ms, 10 + 10 * 10.04 - 100,
              1e-6);
}

TEST(ScalingModel, NeighboursAndSendingTakeFromComputing) {
  Cluster c = Fast();
  c.sharing = 0.1;
  c.sending_ms_per_byte = 1e-5;
  const Exchange one = {AllReduceAlgorithm::kRing, size_t{1} << 30};
  const RankStep step = Even(10, 250000);  // 10 MB of gradients; 50 + 100 ms of images, 2 of the update
  EXPECT_NEAR(Predict(step, c, one, 1).compute_ms, 152, 1e-9);
  // Three neighbours take 0.3 of forward and backward; 2 x 3/4 x 10 MB are sent. In bf16, half of it.
  EXPECT_NEAR(Predict(step, c, one, 4).compute_ms, 150 * 1.3 + 2 + 150, 1e-9);
  EXPECT_NEAR(Predict(step, c, {.bucket_bytes = 1 << 30, .wire = 0.5}, 4).compute_ms, 150 * 1.3 + 2 + 75,
              1e-9);
  // 16 ranks fill two nodes: seven neighbours each.
  EXPECT_NEAR(Predict(step, c, one, 16).compute_ms, 150 * 1.7 + 2 + 187.5, 1e-9);
}

TEST(ScalingModel, MoreRanksThanCoresTakeTurns) {
  Cluster c = Fast();
  c.sharing = 0.1;
  c.concurrent_ranks = 2;
  const RankStep step = Even(1, 16);
  EXPECT_NEAR(Predict(step, c, {}, 1).compute_ms, 152, 1e-9);
  EXPECT_NEAR(Predict(step, c, {}, 2).compute_ms, 150 * 1.1 + 2, 1e-9);
  EXPECT_NEAR(Predict(step, c, {}, 4).compute_ms, 2 * (150 * 1.1 + 2), 1e-9);
  c.concurrent_ranks = 64;
  EXPECT_NEAR(Predict(step, c, {}, 4).compute_ms, 150 * 1.3 + 2, 1e-9);
}

TEST(ScalingModel, WhatHappensBetweenStepsGrowsWithTheLogarithmOfTheRanks) {
  Cluster c = Fast();
  c.control_ms_per_level = 0.5;
  RankStep step = Even(1, 16);
  step.loop_ms = 3;
  EXPECT_NEAR(Predict(step, c, {}, 1).step_ms, 155, 1e-9);
  for (const auto& [ranks, loop_ms] : {std::pair(2, 3.5), std::pair(8, 4.5), std::pair(9, 5.0)}) {
    const Prediction p = Predict(step, c, {}, ranks);
    EXPECT_NEAR(p.loop_ms, loop_ms, 1e-9);
    EXPECT_NEAR(p.step_ms, p.compute_ms + p.comm_exposed_ms + loop_ms, 1e-9);
  }
}

TEST(ScalingModel, FitsComputing) {
  const ComputeLine line = FitCompute({8, 100}, {32, 340});
  EXPECT_NEAR(line.fixed_ms, 20, 1e-9);
  EXPECT_NEAR(line.ms_per_image, 10, 1e-9);
  // One batch does not determine the fixed part; noise makes no part negative.
  for (const ComputeLine& fit : {FitCompute({16, 160}, {16, 160}), FitCompute({8, 70}, {32, 330})}) {
    EXPECT_EQ(fit.fixed_ms, 0);
    EXPECT_NEAR(fit.ms_per_image, 10, 1e-9);
  }
  EXPECT_EQ(FitCompute({8, 22}, {32, 18}).fixed_ms, 20);
  EXPECT_EQ(FitCompute({8, 22}, {32, 18}).ms_per_image, 0);
}

TEST(ScalingModel, FitsWhatRanksTakeFromEachOther) {
  RankStep step = Even(10, 250000);
  const ComputeLine alone = {step.update_ms, (step.forward_ms + step.backward_ms) / 32};
  Cluster truth = Fast(), fitted = Fast();
  truth.sharing = 0.03;
  truth.sending_ms_per_byte = 2e-6;
  const auto sample = [&](int64_t batch) -> ComputeSample {
    return {batch, Predict(WithBatch(step, batch), truth, {}, 16).compute_ms};
  };
  FitInterference(sample(8), sample(64), alone, 16, GradientBytes(step), fitted);
  EXPECT_NEAR(fitted.sharing, 0.03, 1e-9);
  EXPECT_NEAR(fitted.sending_ms_per_byte, 2e-6, 1e-12);
  // Ranks that take turns are not slow because of each other's memory traffic.
  truth.concurrent_ranks = fitted.concurrent_ranks = 4;
  FitInterference(sample(8), sample(64), alone, 16, GradientBytes(step), fitted);
  EXPECT_NEAR(fitted.sharing, 0.03, 1e-9);
  EXPECT_NEAR(fitted.sending_ms_per_byte, 2e-6, 1e-12);
  fitted.concurrent_ranks = 0;
  // One rank per node shares nothing; ranks that are faster together than alone are noise.
  fitted.ranks_per_node = 1;
  FitInterference(sample(8), sample(64), alone, 16, GradientBytes(step), fitted);
  EXPECT_EQ(fitted.sharing, 0);
  FitInterference({8, 1}, {64, 2}, alone, 16, GradientBytes(step), fitted);
  EXPECT_EQ(fitted.sending_ms_per_byte, 0);
}

TEST(ScalingModel, EveryStepWaitsForTheSlowestRank) {
  Cluster c = Fast();
  RankStep step = Even(4, 16);
  double last = 0;
  for (const int ranks : {8, 64, 512, 4096}) {
    c.jitter = 0;
    EXPECT_LT(Predict(step, c, {}, ranks).peer_wait_ms, 1e-9);
    c.jitter = 0.02;
    const Prediction p = Predict(step, c, {}, ranks);
    EXPECT_GT(p.peer_wait_ms, last);
    last = p.peer_wait_ms;
    EXPECT_NEAR(p.compute_ms, 152, 1e-6);  // jitter does not change the mean
    EXPECT_NEAR(p.step_ms, p.compute_ms + p.peer_wait_ms + p.comm_exposed_ms + p.data_wait_ms, 1e-9);
    EXPECT_EQ(p.step_ms, Predict(step, c, {}, ranks).step_ms);
  }
  // A lasting difference between ranks costs as much, and both together add up as variances do.
  c.jitter = 0.016;
  c.spread = 0.012;
  EXPECT_NEAR(Predict(step, c, {}, 4096).peer_wait_ms, last, 1e-9);
  // The largest of 4096 standard normal draws is 3.6 in the mean.
  EXPECT_NEAR(last, 152 * (std::exp(0.02 * 3.6) - 1), 0.15 * last);
}

TEST(ScalingModel, TheLoaderCanBeTheLimit) {
  Cluster c = Fast();
  const RankStep step = Even(4, 16);
  c.loader_images_per_second = 1000;
  EXPECT_EQ(Predict(step, c, {}, 16).data_wait_ms, 0);
  c.loader_images_per_second = 100;
  EXPECT_NEAR(Predict(step, c, {}, 16).images_per_second, 1600, 1e-6);
  EXPECT_NEAR(Predict(step, c, {}, 16).efficiency, 1, 1e-9);  // one rank waits as long
}

TEST(ScalingModel, ChoosesBucketsAndBatch) {
  Cluster c = Fast();
  c.across.bytes_per_second = 1e9;
  const RankStep step = Even(64, 500000);  // 128 MB
  const Exchange ring = {AllReduceAlgorithm::kRing};
  const Exchange chosen = BestBuckets(step, c, ring, 64);
  for (size_t mib = 1; mib <= 64; mib *= 2) {
    EXPECT_LE(Predict(step, c, {AllReduceAlgorithm::kRing, mib << 20}, 64).images_per_second,
              Predict(step, c, chosen, 64).images_per_second);
  }
  const int64_t batch = SmallestBatch(step, c, ring, 64, 0.9);
  ASSERT_GT(batch, 1);
  EXPECT_GE(Predict(WithBatch(step, batch), c, ring, 64).efficiency, 0.9);
  EXPECT_LT(Predict(WithBatch(step, batch / 2), c, ring, 64).efficiency, 0.9);
  EXPECT_EQ(SmallestBatch(step, c, ring, 64, 1.1), 0);
}

TEST(ScalingModel, FitsWhatItPredicts) {
  const Cluster truth = {.ranks_per_node = 1, .across = {.latency_us = 30, .bytes_per_second = 1.2e9}};
  std::vector<CommSample> samples;
  for (const double bytes : {4e3, 64e3, 1e6, 16e6, 64e6})
    samples.push_back({bytes, AllReduceMs(AllReduceAlgorithm::kRing, truth, 6, bytes)});
  const Link link = FitLink(samples, 6);
  EXPECT_NEAR(link.latency_us, 30, 1e-6);
  EXPECT_NEAR(link.bytes_per_second, 1.2e9, 1);
  // Small all-reduces of the best algorithm are trees: 3 levels up and down instead of 10 rounds.
  EXPECT_NEAR(FitLink(samples, 6, AllReduceAlgorithm::kBest).latency_us, 30 * 10.0 / 6, 1e-6);
  EXPECT_NEAR(FitLink(samples, 6, AllReduceAlgorithm::kBest).bytes_per_second, 1.2e9, 1);
  // The first 256 kB pass immediately: the rest determines the bandwidth, 12.5 MB/s.
  const CommSample bucket[] = {{4e3, 0.4}, {64e3, 0.7}, {1e6, 80 - 20}, {4e6, 320 - 20}, {16e6, 1280 - 20}};
  EXPECT_NEAR(FitLink(bucket, 2).bytes_per_second, 12.5e6, 0.03 * 12.5e6);
  EXPECT_NEAR(FitLink(bucket, 2).latency_us, 0, 100);
  // Noise that makes more bytes cheaper gives no negative cost.
  const CommSample falling[] = {{1e3, 3}, {2e3, 2}};
  EXPECT_GT(FitLink(falling, 2).bytes_per_second, 0);
}

TEST(ScalingModel, KnowsWhenGradientsOfANetworkAreReady) {
  const absl::StatusOr<Model> model = MakeModel("googlenet", {});
  ASSERT_TRUE(model.ok());
  const absl::StatusOr<RankStep> step = StepOf(*model, 32, 300);
  ASSERT_TRUE(step.ok());
  EXPECT_NEAR(step->ms(), 300, 1e-9);
  EXPECT_GT(step->backward_ms, 1.8 * step->forward_ms);
  EXPECT_LT(step->backward_ms, 2 * step->forward_ms);
  size_t parameters = 0;
  for (const GradientPiece& piece : step->pieces) parameters += piece.count;
  EXPECT_EQ(parameters, 13378280u);  // with both auxiliary heads, as in docs/reference/models.md
  EXPECT_TRUE(std::is_sorted(step->ready.begin(), step->ready.end()));
  EXPECT_GT(step->ready.front(), 0);
  EXPECT_DOUBLE_EQ(step->ready.back(), 1);
}

// ResNet-50 (He et al. 2016, table 1) by stages, from the last to the first: blocks, parameters, and
// multiply-accumulates of one image.
RankStep ResNet50(int64_t batch, double compute_ms) {
  struct Stage {
    int blocks;
    double parameters, macs;
  };
  const Stage stages[] = {{1, 2.05e6, 0.002e9}, {3, 14.96e6, 0.81e9}, {6, 7.10e6, 1.47e9},
                          {4, 1.22e6, 1.04e9},  {3, 0.22e6, 0.68e9},  {1, 0.01e6, 0.12e9}};
  RankStep step = {.batch = batch, .forward_ms = compute_ms / 3, .backward_ms = compute_ms * 2 / 3};
  double macs = 0;
  for (const Stage& stage : stages) {
    for (int i = 0; i < stage.blocks; ++i) {
      macs += stage.macs / stage.blocks;
      step.pieces.push_back({0, static_cast<size_t>(stage.parameters / stage.blocks)});
      step.ready.push_back(macs);
    }
  }
  for (double& ready : step.ready) ready /= macs;
  return step;
}

struct Published {
  const char* paper;
  int base, ranks;    // efficiency is of these over those
  double efficiency;  // as published
  RankStep step;
  Cluster cluster;
  double wire;
};

// docs/design/scaling-model.md lists the source of each figure, and those that no paper states. Only the
// jitter was fitted, to all three curves together.
std::vector<Published> PublishedCurves() {
  constexpr double kJitter = 0.04;
  return {{"Goyal 2017",
           8,
           256,
           0.90,
           ResNet50(32, 180),
           {.ranks_per_node = 8, .within = {10, 20e9}, .across = {30, 0.8 * 50e9 / 8}, .jitter = kJitter},
           1},
          {"Jia 2018",
           1,
           2048,
           0.879,
           ResNet50(32, 198),
           {.ranks_per_node = 8, .within = {10, 10e9}, .across = {10, 0.8 * 100e9 / 8}, .jitter = kJitter},
           0.5},
          {"Mikami 2018",
           4,
           1088,
           0.9162,
           ResNet50(32, 50),
           {.ranks_per_node = 4, .within = {5, 40e9}, .across = {5, 0.8 * 200e9 / 8}, .jitter = kJitter},
           0.5}};
}

double Efficiency(const Published& p) {
  Exchange exchange = {.wire = p.wire};
  exchange = BestBuckets(p.step, p.cluster, exchange, p.ranks);
  const double rate = Predict(p.step, p.cluster, exchange, p.ranks).images_per_second;
  return rate / p.ranks / (Predict(p.step, p.cluster, exchange, p.base).images_per_second / p.base);
}

TEST(ScalingModel, ReproducesPublishedCurves) {
  for (const Published& p : PublishedCurves()) {
    const double efficiency = Efficiency(p);
    std::printf("%s: published %.1f %%, predicted %.1f %%\n", p.paper, 100 * p.efficiency, 100 * efficiency);
    EXPECT_NEAR(efficiency, p.efficiency, 0.05) << p.paper;
  }
}

// Without the improvements that the papers describe, the model predicts low efficiency.
TEST(ScalingModel, PublishedCurvesNeedWhatTheirAuthorsSayTheyNeed) {
  std::vector<Published> curves = PublishedCurves();
  Published& jia = curves[1];
  const Prediction ring = Predict(jia.step, jia.cluster, {AllReduceAlgorithm::kRing, 8 << 20, 0.5}, 2048);
  EXPECT_LT(ring.efficiency, 0.6);  // latency of 2 x 2047 rounds a bucket
  Published& goyal = curves[0];
  goyal.cluster.across.bytes_per_second /= 10;  // 5 Gbit/s, where the paper estimates a need of 15
  EXPECT_LT(Efficiency(goyal), 0.8);
}

}  // namespace
}  // namespace deeper
