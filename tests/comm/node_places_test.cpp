#include "comm/node_places.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>
#include <vector>

#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

// nodes: the node of each rank.
bool Keeps(const std::vector<int>& nodes) {
  std::map<int, int> sizes, next;
  for (const int node : nodes) ++sizes[node];
  std::vector<RankPlace> places;
  for (const int node : nodes) places.push_back({.local_rank = next[node]++, .local_size = sizes[node]});
  return TreeKeepsToNodes(places);
}

TEST(TreeKeepsToNodes, WhereEqualPowersOfTwoOfNeighboursShareNodes) {
  EXPECT_TRUE(Keeps({0, 0, 1, 1}));
  EXPECT_TRUE(Keeps({0, 0, 1, 1, 2, 2, 3, 3}));
  EXPECT_TRUE(Keeps({1, 1, 1, 1, 0, 0, 0, 0}));
}

TEST(TreeKeepsToNodes, NotElsewhere) {
  EXPECT_FALSE(Keeps({0}));
  EXPECT_FALSE(Keeps({0, 0})) << "one node";
  EXPECT_FALSE(Keeps({0, 1, 2, 3})) << "nothing is within a node";
  EXPECT_FALSE(Keeps({0, 1, 0, 1})) << "neighbours are apart";
  EXPECT_FALSE(Keeps({0, 1, 1, 0})) << "neighbours are apart";
  EXPECT_FALSE(Keeps({0, 0, 0, 1})) << "unequal";
  EXPECT_FALSE(Keeps({0, 0, 1, 1, 2, 2})) << "no power of two of nodes";
  EXPECT_FALSE(Keeps({0, 0, 0, 1, 1, 1})) << "no power of two of ranks on one";
}

TEST(GatherNodePlaces, TellsEveryRankOfAll) {
  auto comms = MakeThreadCommunicators(3);
  std::vector<std::jthread> ranks;
  for (auto& comm : comms) {
    ranks.emplace_back([&comm] {
      const std::vector<RankPlace> places = GatherNodePlaces(*comm);
      ASSERT_EQ(places.size(), 3u);
      for (int rank = 0; rank < 3; ++rank) {
        EXPECT_EQ(places[static_cast<size_t>(rank)].local_rank, rank);
        EXPECT_EQ(places[static_cast<size_t>(rank)].local_size, 3);
      }
    });
  }
}

}  // namespace
}  // namespace deeper
