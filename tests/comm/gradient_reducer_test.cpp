#include "comm/gradient_reducer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "tests/comm/on_every_backend.h"

namespace deeper {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

// Pieces of odd sizes, from the end of the arena to its start as backward finishes them, with a hole of one
// element (padding between parameters) after each third.
struct Arena {
  std::vector<float> values;
  std::vector<GradientPiece> pieces;

  explicit Arena(const std::vector<size_t>& counts) {
    size_t offset = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      pieces.push_back({offset, counts[i]});
      offset += counts[i] + (i % 3 == 2 ? 1 : 0);
    }
    std::reverse(pieces.begin(), pieces.end());
    values.resize(offset, -7.0f);
  }
  void Fill(const GradientPiece& piece, float value) {
    for (size_t i = 0; i < piece.count; ++i) values[piece.offset + i] = value + static_cast<float>(i % 5);
  }
};

// The order in which pieces become ready differs by rank and step.
void ExpectSums(Communicator& comm, Arena arena, size_t bucket_bytes, int steps = 3,
                GradientSum how = GradientSum::kAnyOrder) {
  GradientReducer reducer(comm, arena.values.data(), arena.pieces, bucket_bytes, how);
  Arena expected = arena;
  std::vector<size_t> order(arena.pieces.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::mt19937 shuffle(static_cast<unsigned>(comm.rank()));
  for (int step = 0; step < steps; ++step) {
    std::shuffle(order.begin(), order.end(), shuffle);
    for (const size_t piece : order) {
      arena.Fill(arena.pieces[piece], static_cast<float>(comm.rank() * 100 + step));
      reducer.Ready(piece, {});
    }
    reducer.Finish({});
    for (const GradientPiece& piece : expected.pieces) {
      for (size_t i = 0; i < piece.count; ++i) {
        const int sum =
            comm.size() * (comm.size() - 1) / 2 * 100 + comm.size() * (step + static_cast<int>(i % 5));
        expected.values[piece.offset + i] = static_cast<float>(sum);
      }
    }
    EXPECT_TRUE(arena.values == expected.values)
        << "step " << step << ", buckets of " << bucket_bytes << " bytes";
    EXPECT_GE(reducer.TakeWaitMs(), 0);
    EXPECT_EQ(reducer.TakeWaitMs(), 0);
  }
}

TEST_P(OnEveryBackend, GradientsAreSummedWhateverTheBuckets) {
  OnEachRank([](Communicator& comm) {
    const Arena arena({9, 1, 4097, 64, 0, 20011, 3, 5, 7777, 1, 100003});
    for (const size_t bucket_bytes : {size_t{1}, size_t{20}, size_t{4099}, size_t{100000}, size_t{1} << 30})
      ExpectSums(comm, arena, bucket_bytes);
  });
}

TEST_P(OnEveryBackend, GradientsAreSummedInATreeAndInBf16) {
  OnEachRank([](Communicator& comm) {
    const Arena arena({9, 1, 4097, 64, 0, 20011, 3});
    if (comm.size() != 3) ExpectSums(comm, arena, 4099, 3, GradientSum::kTree);
    if (comm.size() < 3) ExpectSums(comm, arena, 4099, 3, GradientSum::kBf16);  // sums of 8 bits are exact
  });
}

TEST_P(OnEveryBackend, TunedBucketsAreSummedAsWell) {
  OnEachRank([](Communicator& comm) {
    ExpectSums(comm, Arena({9, 300001, 64, 300000, 5, 300003}), kTunedBuckets, /*steps=*/16);
  });
}

// Pretends to be one of two ranks; records what is sent.
class RecordingCommunicator final : public Communicator {
 public:
  RecordingCommunicator(const float* arena, int size) : Communicator({0, size, 0, size}), arena_(arena) {}
  std::string name() const override { return "recording"; }
  Request AllReduce(void* data, size_t count, CommType, ReduceOp, Stream) override {
    sent.emplace_back(static_cast<const float*>(data) - arena_, count);
    return {};
  }
  Request SumInBf16(float*, float*, size_t, Stream) override { return {}; }
  Request ReduceScatter(const float*, float*, size_t, Stream) override { return {}; }
  Request AllGather(const void*, void*, size_t, Stream) override { return {}; }
  Request Broadcast(void*, size_t, int, Stream) override { return {}; }
  void Barrier() override {}
  void Abort(int exit_code, const std::string&) override { std::_Exit(exit_code); }

  std::vector<std::pair<ptrdiff_t, size_t>> sent;  // offset, count

 private:
  const float* arena_;
};

TEST(GradientReducer, SendsEachBucketOnceCompleteAndInOrder) {
  std::vector<float> arena(40);
  RecordingCommunicator comm(arena.data(), 2);
  GradientReducer reducer(comm, arena.data(), {{30, 10}, {20, 10}, {10, 10}, {0, 10}}, 80);
  for (int step = 0; step < 2; ++step) {
    comm.sent.clear();
    reducer.Ready(3, {});
    reducer.Ready(2, {});
    EXPECT_THAT(comm.sent, IsEmpty()) << "the second bucket waits for the first";
    reducer.Ready(0, {});
    EXPECT_THAT(comm.sent, IsEmpty()) << "piece 1 is missing";
    reducer.Ready(1, {});
    EXPECT_THAT(comm.sent, ElementsAre(Pair(20, 20), Pair(0, 20)));
    reducer.Finish({});
  }
}

TEST(GradientReducer, KeepsHolesOfTheArenaOutOfTheMessages) {
  std::vector<float> arena(40);
  RecordingCommunicator comm(arena.data(), 2);
  GradientReducer reducer(comm, arena.data(), {{0, 5}, {20, 5}, {5, 5}, {30, 0}}, 1000);
  for (size_t piece = 0; piece < 4; ++piece) reducer.Ready(piece, {});
  EXPECT_THAT(comm.sent, ElementsAre(Pair(0, 10), Pair(20, 5)));
  reducer.Finish({});
}

TEST(GradientReducer, OneRankSendsNothing) {
  std::vector<float> arena(10);
  RecordingCommunicator comm(arena.data(), 1);
  GradientReducer reducer(comm, arena.data(), {{0, 10}}, 1);
  reducer.Ready(0, {});
  reducer.Finish({});
  EXPECT_THAT(comm.sent, IsEmpty());
}

TEST(GradientReducerDeathTest, EveryPieceExactlyOnce) {
  std::vector<float> arena(20);
  RecordingCommunicator comm(arena.data(), 2);
  GradientReducer reducer(comm, arena.data(), {{0, 10}, {10, 10}}, 1);
  reducer.Ready(0, {});
  EXPECT_DEATH(reducer.Ready(0, {}), "gradient piece 0");
  EXPECT_DEATH(reducer.Ready(2, {}), "gradient piece 2");
  EXPECT_DEATH(reducer.Finish({}), "a gradient is not ready");
}

}  // namespace
}  // namespace deeper
