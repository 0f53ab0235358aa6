#include "trainer/scaling/health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

namespace deeper {
namespace {

using ::testing::HasSubstr;

constexpr JobWants kWants = {.checkpoint_bytes = 1e9, .images_per_second = 500};

// 8 healthy ranks on 4 hosts, whose figures differ by a few per cent.
std::vector<RankHealth> Healthy() {
  std::vector<RankHealth> ranks(8);
  for (size_t i = 0; i < ranks.size(); ++i) {
    RankHealth& rank = ranks[i];
    std::snprintf(rank.host, sizeof rank.host, "node%zu", i / 2);
    std::snprintf(rank.network, sizeof rank.network, "eth0");
    const double spread = 1 + 0.01 * static_cast<double>(i % 5);
    rank.nominal_bytes_per_second = 12.5e9;
    rank.link_latency_us = 20;
    rank.link_bytes_per_second = (i % 2 == 0 ? 9e9 : 40e9) * spread;  // across hosts, within one
    rank.compute_ms = 100 * spread;
    rank.data_images_per_second = 900 * spread;
    rank.free_bytes = 100e9;
  }
  return ranks;
}

// The only finding.
Finding TheFinding(const std::vector<RankHealth>& ranks) {
  const std::vector<Finding> findings = Examine(ranks, kWants);
  EXPECT_EQ(findings.size(), 1u);
  return findings.empty() ? Finding{} : findings[0];
}

TEST(Health, NothingIsWrongWithAFewPerCent) {
  EXPECT_TRUE(Examine(Healthy(), kWants).empty());
}

TEST(Health, NamesLinksBelowTheirNominalBandwidth) {
  std::vector<RankHealth> ranks = Healthy();
  for (RankHealth& rank : ranks) rank.nominal_bytes_per_second = 2.5e9;
  for (const size_t i : {0, 2, 4, 6}) ranks[i].link_bytes_per_second = 0.64e9;  // just enough
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[3].nominal_bytes_per_second = 125e9;  // the slower interface counts
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[4].link_bytes_per_second = 0.6e9;
  const Finding finding = TheFinding(ranks);
  EXPECT_FALSE(finding.fit);
  EXPECT_EQ(finding.code, ExitCode::kCommunication);
  EXPECT_THAT(finding.text, HasSubstr("from rank 3 (node1) to rank 4 (node2) gives 600.0 MB/s"));
  EXPECT_THAT(finding.text, HasSubstr("24.0 % of the 2500 MB/s that eth0 of node2 reports"));
}

TEST(Health, ExpectsNoMoreOfOneStreamThanItCanGive) {
  std::vector<RankHealth> ranks = Healthy();
  for (RankHealth& rank : ranks) rank.nominal_bytes_per_second = 50e9;
  for (const size_t i : {0, 2, 4, 6}) ranks[i].link_bytes_per_second = 2.5e9;
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[4].link_bytes_per_second = 1e9;
  EXPECT_THAT(TheFinding(ranks).text, HasSubstr("2.0 % of the 50000 MB/s"));
}

// Links of 10e9 bytes/s between hosts, whose interfaces have a nominal speed of 50e9.
std::vector<RankHealth> WithStreams(double bytes_per_second) {
  std::vector<RankHealth> ranks = Healthy();
  for (RankHealth& rank : ranks) rank.nominal_bytes_per_second = 50e9;
  for (const size_t i : {0, 2, 4, 6}) {
    ranks[i].link_bytes_per_second = 10e9;
    ranks[i].streams_bytes_per_second = bytes_per_second;
  }
  return ranks;
}

TEST(Health, ExpectsAllOfTheNetworkOfSeveralStreams) {
  std::vector<RankHealth> ranks = WithStreams(13e9);
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[4].streams_bytes_per_second = 12e9;
  const Finding finding = TheFinding(ranks);
  EXPECT_FALSE(finding.fit);
  EXPECT_THAT(finding.text, HasSubstr("20.0 % of the 50000 MB/s"));
  EXPECT_THAT(finding.text, HasSubstr("; 8 TCP connections at once give 12000.0 MB/s: look for a throttled"));
  ranks[4].streams_bytes_per_second = 3e9;  // over InfiniBand, which MPI uses without TCP
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[4].streams_bytes_per_second = 0;  // a firewall lets none pass
  EXPECT_TRUE(Examine(ranks, kWants).empty());
}

TEST(Health, AdvisesSeveralConnections) {
  std::vector<RankHealth> ranks = WithStreams(19e9);
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[6].streams_bytes_per_second = 21e9;
  const Finding finding = TheFinding(ranks);
  EXPECT_TRUE(finding.fit);
  EXPECT_THAT(finding.text, HasSubstr("to rank 6 (node3) gives 10000.0 MB/s"));
  EXPECT_THAT(finding.text, HasSubstr("--mca btl_tcp_links 4"));
  for (const size_t i : {0, 2, 4, 6}) ranks[i].link_bytes_per_second = 1.3e9;
  ranks[6].link_bytes_per_second = 1.2e9;  // too slow, and the network is not the reason
  const std::vector<Finding> findings = Examine(ranks, kWants);
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_FALSE(findings[0].fit);
  EXPECT_THAT(findings[0].text, HasSubstr("2.4 % of the 50000 MB/s"));
  EXPECT_THAT(findings[0].text, HasSubstr("give 21000.0 MB/s: let MPI use several connections"));
}

TEST(Health, NotesHostsWithLittleSharedMemory) {
  std::vector<RankHealth> ranks = Healthy();
  for (RankHealth& rank : ranks) rank.shared_memory_bytes = 8e9;
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  for (const size_t i : {2, 3}) ranks[i].shared_memory_bytes = 64e6;
  const Finding finding = TheFinding(ranks);
  EXPECT_TRUE(finding.fit);
  EXPECT_THAT(finding.text, HasSubstr("/dev/shm of node1 has only 64 MB"));
  std::snprintf(ranks[3].host, sizeof ranks[3].host, "node9");  // a rank alone shares nothing
  for (RankHealth& rank : ranks) rank.link_bytes_per_second = 0;
  EXPECT_TRUE(Examine(ranks, kWants).empty());
}

TEST(Health, ComparesLinksWithTheirOwnKind) {
  std::vector<RankHealth> ranks = Healthy();
  ranks[5].link_bytes_per_second = 15e9;  // within a host: faster than links across hosts
  EXPECT_THAT(TheFinding(ranks).text, HasSubstr("from rank 4 (node2) to rank 5 (node2)"));
  for (RankHealth& rank : ranks) rank.link_bytes_per_second = 0;
  EXPECT_TRUE(Examine(ranks, kWants).empty());
}

TEST(Health, NamesSlowRanks) {
  std::vector<RankHealth> ranks = Healthy();
  ranks[6].compute_ms = 124;
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[6].compute_ms = 140;
  EXPECT_THAT(TheFinding(ranks).text, HasSubstr("rank 6 (node3) is slow: 140.0 ms"));
  ranks.resize(2);  // of two, the slower
  for (RankHealth& rank : ranks) rank.link_bytes_per_second = 0;
  ranks[1].compute_ms = 300;
  EXPECT_THAT(TheFinding(ranks).text, HasSubstr("rank 1 (node0) is slow"));
}

// If all times vary as much, none is an outlier.
TEST(Health, NamesNobodyWhereAllVary) {
  std::vector<RankHealth> ranks = Healthy();
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i].compute_ms = 100 + 15 * static_cast<double>(i);
  EXPECT_TRUE(Examine(ranks, kWants).empty());
}

TEST(Health, NamesSlowLoaders) {
  std::vector<RankHealth> ranks = Healthy();
  ranks[3].data_images_per_second = 400;
  const Finding finding = TheFinding(ranks);
  EXPECT_EQ(finding.code, ExitCode::kData);
  EXPECT_THAT(finding.text, HasSubstr("rank 3 (node1) loads 400.0 images/s"));
  ranks[3].data_images_per_second = 501;  // enough
  EXPECT_TRUE(Examine(ranks, kWants).empty());
  ranks[3].data_images_per_second = 400;
  ranks[4].data_images_per_second = 0;  // not asked for
  EXPECT_TRUE(Examine(ranks, kWants).empty());
}

TEST(Health, ChecksTheDirectoryForCheckpoints) {
  std::vector<RankHealth> ranks = Healthy();
  ranks[2].sees_lock = false;
  EXPECT_EQ(TheFinding(ranks).code, ExitCode::kCheckpoint);
  EXPECT_THAT(TheFinding(ranks).text, HasSubstr("rank 2 (node1) got the lock"));
  ranks[2].sees_lock = true;
  ranks[7].free_bytes = 0.5e9;
  EXPECT_THAT(TheFinding(ranks).text,
              HasSubstr("rank 7 (node3): 0.5 GB are free for checkpoints, which need 1.0"));
  EXPECT_TRUE(Examine(ranks, {}).empty());
}

TEST(Health, ClocksMatterLittle) {
  std::vector<RankHealth> ranks = Healthy();
  ranks[1].clock_skew_seconds = -2;
  EXPECT_TRUE(TheFinding(ranks).fit);
  EXPECT_THAT(TheFinding(ranks).text, HasSubstr("rank 1 (node0) is off by -2.0 s"));
}

TEST(Health, TheVerdictIsAllThatIsUnfitWithTheFirstCode) {
  EXPECT_TRUE(VerdictOf({}).ok());
  EXPECT_TRUE(VerdictOf({{true, ExitCode::kDone, "a clock is off"}}).ok());
  const absl::Status verdict = VerdictOf({{false, ExitCode::kData, "slow disk"},
                                          {true, ExitCode::kDone, "a clock is off"},
                                          {false, ExitCode::kCheckpoint, "full"}});
  EXPECT_EQ(ExitCodeOf(verdict), ExitCode::kData);
  EXPECT_EQ(verdict.message(), "not fit to train on: slow disk; full");
}

TEST(Health, AdvisesOnWhatBoundsAStep) {
  const RankStep step = {.batch = 8,
                         .forward_ms = 30,
                         .backward_ms = 60,
                         .update_ms = 10,
                         .pieces = {{0, 10'000'000}},
                         .ready = {1}};
  const Cluster cluster = {.ranks_per_node = 4, .within = {.latency_us = 20, .bytes_per_second = 1e9}};
  const Exchange ring = {.algorithm = AllReduceAlgorithm::kRing};
  const auto advice = [&](const Prediction& p) { return Advice(step, cluster, ring, p); };
  Prediction p = Predict(step, cluster, ring, 4);
  EXPECT_EQ(Bottleneck(p), "communication");  // 60 ms of it after 100 ms of computing
  EXPECT_THAT(advice(p), HasSubstr("--wire=bf16"));
  EXPECT_THAT(advice(p), HasSubstr("gives an efficiency of 90 %"));
  p = {.step_ms = 200, .peer_wait_ms = 11, .comm_exposed_ms = 9, .data_wait_ms = 10};
  EXPECT_EQ(Bottleneck(p), "slower ranks");
  EXPECT_THAT(advice(p), HasSubstr("--bind-to core"));
  p.data_wait_ms = 12;
  EXPECT_EQ(Bottleneck(p), "data");
  EXPECT_THAT(advice(p), HasSubstr("--workers"));
  p.step_ms = 1000;
  EXPECT_EQ(Bottleneck(p), "computing");
  EXPECT_THAT(advice(p), HasSubstr("more ranks"));
}

}  // namespace
}  // namespace deeper
