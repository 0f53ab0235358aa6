// Tests the contract of comm/communicator.h for every communicator.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <thread>
#include <vector>

#include "kernels/base/rng.h"
#include "tests/comm/on_every_backend.h"

namespace deeper {
namespace {

constexpr size_t kLarge =
    (size_t{4} << 20) / sizeof(float) + 1;  // odd, and beyond every eager-message threshold
constexpr size_t kSizes[] = {0, 1, 2, 3, 17, 1023, 65537, kLarge};

// Element i of rank r; small enough for exact sums over any ranks in every type.
int ValueOf(int rank, size_t i) {
  return static_cast<int>((i * 7 + static_cast<size_t>(rank) * 5) % 11);
}

int Expected(ReduceOp op, int size, size_t i) {
  int result = ValueOf(0, i);
  for (int rank = 1; rank < size; ++rank) {
    const int value = ValueOf(rank, i);
    result = op == ReduceOp::kSum   ? result + value
             : op == ReduceOp::kMax ? std::max(result, value)
                                    : std::min(result, value);
  }
  return result;
}

template <class T>
std::vector<T> Values(int rank, size_t count, size_t first = 0) {
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<T>(ValueOf(rank, first + i));
  return values;
}

template <class T>
std::vector<T> ExpectedValues(ReduceOp op, int size, size_t count, size_t first = 0) {
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<T>(Expected(op, size, first + i));
  return values;
}

template <class T>
void ExpectAllReduce(Communicator& comm, CommType type, size_t count) {
  for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
    std::vector<T> data = Values<T>(comm.rank(), count);
    comm.AllReduce(data.data(), count, type, op, {}).Wait();
    EXPECT_TRUE(data == ExpectedValues<T>(op, comm.size(), count))
        << "count " << count << ", op " << static_cast<int>(op);
  }
}

// Floats whose sum depends on the order of summation.
std::vector<float> InexactValues(int rank, size_t count) {
  Rng rng(1, RandomStream("communicator_test"), 0, static_cast<uint64_t>(rank));
  std::vector<float> values(count);
  for (float& value : values) value = (rng.NextUnit() - 0.5f) * (rng.Next() % 2 == 0 ? 1.0f : 1e4f);
  return values;
}

TEST_P(OnEveryBackend, RanksAreNumbered) {
  OnEachRank([](Communicator& comm) {
    EXPECT_FALSE(comm.name().empty());
    EXPECT_GE(comm.rank(), 0);
    EXPECT_LT(comm.rank(), comm.size());
    EXPECT_GE(comm.local_rank(), 0);
    EXPECT_LT(comm.local_rank(), comm.local_size());
    EXPECT_LE(comm.local_size(), comm.size());
    std::vector<int> ranks(static_cast<size_t>(comm.size())), expected(ranks.size());
    const int mine = comm.rank();
    comm.AllGather(&mine, ranks.data(), sizeof(mine), {}).Wait();
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(ranks, expected);
  });
}

TEST_P(OnEveryBackend, AllReduceEveryTypeOpAndSize) {
  OnEachRank([](Communicator& comm) {
    for (const size_t count : kSizes) {
      ExpectAllReduce<float>(comm, CommType::kF32, count);
      if (count > 100000) continue;
      ExpectAllReduce<double>(comm, CommType::kF64, count);
      ExpectAllReduce<int64_t>(comm, CommType::kI64, count);
      ExpectAllReduce<uint8_t>(comm, CommType::kU8, count);
    }
  });
}

TEST_P(OnEveryBackend, AllReduceKeepsTheWholeRangeOfAType) {
  OnEachRank([](Communicator& comm) {
    const bool first = comm.rank() == 0;
    int64_t wide = first ? std::numeric_limits<int64_t>::min() : std::numeric_limits<int64_t>::max();
    comm.AllReduce(&wide, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
    EXPECT_EQ(wide, std::numeric_limits<int64_t>::min());
    uint8_t byte = first ? 200 : 3;  // negative, if it were signed
    comm.AllReduce(&byte, 1, CommType::kU8, ReduceOp::kMax, {}).Wait();
    EXPECT_EQ(byte, 200);
    double fine = first ? 1.0 + 1e-12 : 1.0;
    comm.AllReduce(&fine, 1, CommType::kF64, ReduceOp::kMax, {}).Wait();
    EXPECT_EQ(fine, 1.0 + 1e-12);
  });
}

TEST_P(OnEveryBackend, AllReduceGivesTheSameBitsOnEveryRankAndEveryTime) {
  OnEachRank([](Communicator& comm) {
    for (const size_t count : {size_t{5}, size_t{1023}, kLarge}) {
      const std::vector<float> mine = InexactValues(comm.rank(), count);
      std::vector<float> sum = mine;
      comm.AllReduce(sum.data(), count, CommType::kF32, ReduceOp::kSum, {}).Wait();
      std::vector<float> root = sum;
      comm.Broadcast(root.data(), count * sizeof(float), 0, {}).Wait();
      EXPECT_EQ(std::memcmp(sum.data(), root.data(), count * sizeof(float)), 0) << "differs from rank 0's";
      std::vector<float> again = mine;
      comm.AllReduce(again.data(), count, CommType::kF32, ReduceOp::kSum, {}).Wait();
      EXPECT_EQ(std::memcmp(sum.data(), again.data(), count * sizeof(float)), 0)
          << "differs from the first time";
    }
  });
}

// parts[first..first + count), a power of two of them, added up in a balanced binary tree.
std::vector<float> TreeSum(const std::vector<std::vector<float>>& parts, size_t first, size_t count) {
  if (count == 1) return parts[first];
  std::vector<float> sum = TreeSum(parts, first, count / 2);
  const std::vector<float> right = TreeSum(parts, first + count / 2, count / 2);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += right[i];
  return sum;
}

TEST_P(OnEveryBackend, TreeSumsAreTheSameBitsOnAnyNumberOfRanks) {
  OnEachRank([](Communicator& comm) {
    constexpr size_t kParts = 8;
    const auto size = static_cast<size_t>(comm.size()), share = kParts / size;
    if (kParts % size != 0) return;
    for (const size_t count : {size_t{0}, size_t{1}, size_t{5}, size_t{1023}, size_t{200001}}) {
      std::vector<std::vector<float>> parts;
      for (size_t i = 0; i < kParts; ++i) parts.push_back(InexactValues(static_cast<int>(i), count));
      // Two at once, to check that their messages do not mix.
      std::vector<float> sum = TreeSum(parts, static_cast<size_t>(comm.rank()) * share, share), again = sum;
      Request first = comm.AllReduce(sum.data(), count, CommType::kF32, ReduceOp::kTreeSum, {});
      comm.AllReduce(again.data(), count, CommType::kF32, ReduceOp::kTreeSum, {}).Wait();
      first.Wait();
      const std::vector<float> expected = TreeSum(parts, 0, kParts);
      EXPECT_TRUE(sum == expected) << "count " << count;
      EXPECT_TRUE(again == expected) << "count " << count;
    }
  });
}

// Sums the results of SumInBf16 for the same gradients, step after step. Returns the largest relative error.
double DriftOfBf16Sums(Communicator& comm, size_t count, int steps, bool feedback) {
  std::vector<double> exact(count), sum(count);
  for (int rank = 0; rank < comm.size(); ++rank) {
    const std::vector<float> theirs = InexactValues(rank, count);
    for (size_t i = 0; i < count; ++i) exact[i] += steps * double{theirs[i]};
  }
  std::vector<float> residual(count);
  for (int step = 0; step < steps; ++step) {
    std::vector<float> data = InexactValues(comm.rank(), count);
    comm.SumInBf16(data.data(), residual.data(), count, {}).Wait();
    for (size_t i = 0; i < count; ++i) sum[i] += data[i];
    if (!feedback) std::fill(residual.begin(), residual.end(), 0.0f);
    if (step > 0) continue;
    std::vector<float> root = data;
    comm.Broadcast(root.data(), count * sizeof(float), 0, {}).Wait();
    EXPECT_TRUE(data == root) << "differs from rank 0's";
  }
  // With the residuals of the ranks, only fp32 rounding is missing.
  std::vector<double> held(residual.begin(), residual.end());
  comm.AllReduce(held.data(), count, CommType::kF64, ReduceOp::kSum, {}).Wait();
  double drift = 0;
  for (size_t i = 0; i < count; ++i) {
    drift = std::max(drift, std::abs(sum[i] - exact[i]) / steps);
    if (feedback) {
      EXPECT_NEAR(sum[i] + held[i], exact[i], 0.02 * steps) << "element " << i;
    }
  }
  return drift;
}

// The values go up to 5000, where adjacent bf16 numbers are 32 apart.
TEST_P(OnEveryBackend, Bf16SumsTrackTheTrueSumOverSteps) {
  OnEachRank([](Communicator& comm) {
    for (const size_t count : {size_t{0}, size_t{1}, size_t{3}, size_t{1023}}) {
      const double drift = DriftOfBf16Sums(comm, count, 100, /*feedback=*/true);
      EXPECT_LE(drift, 0.5 * comm.size()) << count;
      if (count == 1023) {
        EXPECT_GT(DriftOfBf16Sums(comm, count, 100, /*feedback=*/false), 10 * drift);
      }
    }
  });
}

TEST_P(OnEveryBackend, Bf16SumsOfSmallNumbersAreExact) {
  OnEachRank([](Communicator& comm) {
    for (const size_t count : {size_t{17}, kLarge}) {
      std::vector<float> data = Values<float>(comm.rank(), count), residual(count);
      comm.SumInBf16(data.data(), residual.data(), count, {}).Wait();
      EXPECT_TRUE(data == ExpectedValues<float>(ReduceOp::kSum, comm.size(), count)) << count;
      EXPECT_TRUE(residual == std::vector<float>(count)) << count;
    }
  });
}

TEST_P(OnEveryBackend, Bf16SumsForgetAnOverflow) {
  OnEachRank([](Communicator& comm) {
    std::vector<float> data = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(), 1};
    std::vector<float> residual(3);
    comm.SumInBf16(data.data(), residual.data(), 3, {}).Wait();
    EXPECT_FALSE(std::isfinite(data[0]));
    data = {1, 1, 1};
    comm.SumInBf16(data.data(), residual.data(), 3, {}).Wait();
    EXPECT_EQ(data, std::vector<float>(3, static_cast<float>(comm.size())));
  });
}

TEST_P(OnEveryBackend, ReduceScatterSumsEachRanksShard) {
  OnEachRank([](Communicator& comm) {
    const size_t rank = static_cast<size_t>(comm.rank()), size = static_cast<size_t>(comm.size());
    for (const size_t count : {size_t{0}, size_t{1}, size_t{1023}, kLarge / size}) {
      const std::vector<float> data = Values<float>(comm.rank(), count * size);
      std::vector<float> shard(count, -1.0f);
      comm.ReduceScatter(data.data(), shard.data(), count, {}).Wait();
      EXPECT_TRUE(shard == ExpectedValues<float>(ReduceOp::kSum, comm.size(), count, rank * count))
          << "count " << count;
      EXPECT_TRUE(data == Values<float>(comm.rank(), count * size)) << "the input changed";
    }
  });
}

void ExpectAllGather(Communicator& comm, size_t bytes, bool in_place) {
  const std::vector<uint8_t> mine = Values<uint8_t>(comm.rank(), bytes);
  std::vector<uint8_t> all(bytes * static_cast<size_t>(comm.size()), 0xFF), expected;
  uint8_t* const own = all.data() + static_cast<size_t>(comm.rank()) * bytes;
  if (in_place) std::copy(mine.begin(), mine.end(), own);
  comm.AllGather(in_place ? own : mine.data(), all.data(), bytes, {}).Wait();
  for (int rank = 0; rank < comm.size(); ++rank) {
    const std::vector<uint8_t> theirs = Values<uint8_t>(rank, bytes);
    expected.insert(expected.end(), theirs.begin(), theirs.end());
  }
  EXPECT_TRUE(all == expected) << bytes << " bytes, in place: " << in_place;
}

TEST_P(OnEveryBackend, AllGatherInAndOutOfPlace) {
  OnEachRank([](Communicator& comm) {
    for (const size_t bytes : kSizes) {
      ExpectAllGather(comm, bytes, false);
      ExpectAllGather(comm, bytes, true);
    }
  });
}

TEST_P(OnEveryBackend, ShiftGoesRoundTheRing) {
  OnEachRank([](Communicator& comm) {
    const int previous = (comm.rank() + comm.size() - 1) % comm.size();
    for (const size_t count : kSizes) {
      const std::vector<float> mine = Values<float>(comm.rank(), count);
      std::vector<float> received(count, -1.0f);
      comm.Shift(mine.data(), received.data(), count * sizeof(float)).Wait();
      EXPECT_TRUE(received == Values<float>(previous, count)) << "count " << count;
    }
    // One message, from rank 0 to rank 1.
    if (comm.size() == 1) return;
    const int mine = 17 + comm.rank();
    int received = -1;
    comm.Shift(comm.rank() == 0 ? &mine : nullptr, comm.rank() == 1 ? &received : nullptr, sizeof mine)
        .Wait();
    EXPECT_EQ(received, comm.rank() == 1 ? 17 : -1);
  });
}

TEST_P(OnEveryBackend, BroadcastFromEveryRoot) {
  OnEachRank([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root) {
      for (const size_t bytes : kSizes) {
        std::vector<uint8_t> data = Values<uint8_t>(comm.rank(), bytes);
        comm.Broadcast(data.data(), bytes, root, {}).Wait();
        EXPECT_TRUE(data == Values<uint8_t>(root, bytes)) << bytes << " bytes from rank " << root;
      }
    }
  });
}

TEST_P(OnEveryBackend, SeveralInFlightCompleteInAnyOrder) {
  OnEachRank([](Communicator& comm) {
    constexpr size_t kCount = 30001;
    std::vector<std::vector<float>> data(6, Values<float>(comm.rank(), kCount));
    std::vector<uint8_t> bytes = Values<uint8_t>(comm.rank(), kCount);
    const int root = comm.size() - 1;
    std::vector<Request> requests;
    for (auto& values : data)
      requests.push_back(comm.AllReduce(values.data(), kCount, CommType::kF32, ReduceOp::kSum, {}));
    requests.push_back(comm.Broadcast(bytes.data(), kCount, root, {}));
    std::reverse(requests.begin(), requests.end());
    for (Request& request : requests) request.Wait();
    const std::vector<float> expected = ExpectedValues<float>(ReduceOp::kSum, comm.size(), kCount);
    for (const auto& values : data) EXPECT_TRUE(values == expected);
    EXPECT_TRUE(bytes == Values<uint8_t>(root, kCount));
  });
}

// The data of one of many collectives in progress. Its kind depends only on `index`.
struct Flight {
  explicit Flight(size_t index) : kind(index % 5), count((index * 997) % 3001) {}

  Request Start(Communicator& comm) {
    const auto size = static_cast<size_t>(comm.size());
    values = Values<float>(comm.rank(), count * size);
    all.assign(count * size, -1.0f);
    const size_t bytes = count * sizeof(float);
    switch (kind) {
      case 0:
        return comm.AllReduce(values.data(), values.size(), CommType::kF32, ReduceOp::kSum, {});
      case 1:
        return comm.AllReduce(values.data(), values.size(), CommType::kF32, ReduceOp::kMax, {});
      case 2:
        return comm.ReduceScatter(values.data(), all.data(), count, {});
      case 3:
        return comm.AllGather(values.data(), all.data(), bytes, {});
      default:
        return comm.Broadcast(values.data(), size * bytes, comm.size() - 1, {});
    }
  }
  void Check(const Communicator& comm) const {
    const auto size = static_cast<size_t>(comm.size());
    for (size_t i = 0; i < count; ++i) {
      const size_t scattered = static_cast<size_t>(comm.rank()) * count + i;
      const float expected = static_cast<float>(kind == 0   ? Expected(ReduceOp::kSum, comm.size(), i)
                                                : kind == 1 ? Expected(ReduceOp::kMax, comm.size(), i)
                                                : kind == 2 ? Expected(ReduceOp::kSum, comm.size(), scattered)
                                                            : ValueOf(comm.size() - 1, i));
      const float got = kind == 2 ? all[i] : kind == 3 ? all[(size - 1) * count + i] : values[i];
      ASSERT_EQ(got, expected) << "kind " << kind << ", element " << i;
    }
  }

  size_t kind, count;
  std::vector<float> values, all;  // [count * size]
};

// Repeated, so that a leak of the library's resources shows.
TEST_P(OnEveryBackend, ManyInFlightAgainAndAgain) {
  OnEachRank([](Communicator& comm) {
    for (int round = 0; round < 10; ++round) {
      std::vector<Flight> flights;
      std::vector<Request> requests;
      for (size_t i = 0; i < 100; ++i) flights.emplace_back(i + static_cast<size_t>(round));
      for (Flight& flight : flights) requests.push_back(flight.Start(comm));
      for (size_t i = 0; i < requests.size(); ++i) requests[(i * 37 + 11) % requests.size()].Wait();
      for (const Flight& flight : flights) flight.Check(comm);
    }
  });
}

TEST_P(OnEveryBackend, SixtyFourMegabytes) {
  OnEachRank([](Communicator& comm) {
    const auto size = static_cast<size_t>(comm.size()), rank = static_cast<size_t>(comm.rank());
    const size_t count = (size_t{64} << 20) / sizeof(float) / size - 1;
    std::vector<float> data = Values<float>(comm.rank(), count * size), shard(count);
    comm.ReduceScatter(data.data(), shard.data(), count, {}).Wait();
    EXPECT_TRUE(shard == ExpectedValues<float>(ReduceOp::kSum, comm.size(), count, rank * count));
    comm.AllGather(shard.data(), data.data(), count * sizeof(float), {}).Wait();
    const std::vector<float> sum = ExpectedValues<float>(ReduceOp::kSum, comm.size(), count * size);
    EXPECT_TRUE(data == sum);
    data = Values<float>(comm.rank(), count * size);
    comm.AllReduce(data.data(), count * size, CommType::kF32, ReduceOp::kSum, {}).Wait();
    EXPECT_TRUE(data == sum);
    if (rank > 0) std::fill(data.begin(), data.end(), 0.0f);
    comm.Broadcast(data.data(), data.size() * sizeof(float), 0, {}).Wait();
    EXPECT_TRUE(data == sum);
  });
}

// No rank waits: Test only polls.
TEST_P(OnEveryBackend, CollectivesProgressWhileNobodyWaits) {
  OnEachRank([](Communicator& comm) {
    std::vector<float> data = Values<float>(comm.rank(), kLarge), second = data;
    Request request = comm.AllReduce(data.data(), kLarge, CommType::kF32, ReduceOp::kSum, {});
    Request other = comm.AllReduce(second.data(), kLarge, CommType::kF32, ReduceOp::kSum, {});
    while (!other.Test()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    request.Wait();
    EXPECT_TRUE(data == ExpectedValues<float>(ReduceOp::kSum, comm.size(), kLarge));
    EXPECT_TRUE(second == data);
    EXPECT_TRUE(request.Test());
    request.Wait();
  });
}

// Two threads of a rank, each with its own order of collectives. Those of the duplicate do not mix with those
// of the original.
TEST_P(OnEveryBackend, ADuplicateHasAnOrderOfItsOwn) {
  OnEachRank([](Communicator& comm) {
    const std::unique_ptr<Communicator> duplicate = comm.Duplicate();
    EXPECT_EQ(duplicate->rank(), comm.rank());
    EXPECT_EQ(duplicate->size(), comm.size());
    const auto sums = [](Communicator& on, int64_t addend) {
      for (int64_t i = 0; i < 50; ++i) {
        int64_t sum = i + addend;
        on.AllReduce(&sum, 1, CommType::kI64, ReduceOp::kSum, {}).Wait();
        EXPECT_EQ(sum, (i + addend) * on.size());
        std::vector<float> data = Values<float>(on.rank(), 1000);
        on.AllReduce(data.data(), data.size(), CommType::kF32, ReduceOp::kSum, {}).Wait();
        EXPECT_TRUE(data == ExpectedValues<float>(ReduceOp::kSum, on.size(), 1000));
      }
    };
    std::thread other(sums, std::ref(*duplicate), 1000);
    if (comm.rank() % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    sums(comm, 0);
    other.join();
  });
}

TEST(Request, IsCompleteByDefault) {
  Request request;
  EXPECT_TRUE(request.Test());
  request.Wait();
}

// All ranks of a machine share one clock: no rank leaves before the last has arrived.
TEST_P(OnEveryBackend, BarrierWaitsForEveryRank) {
  OnEachRank([](Communicator& comm) {
    const auto now = [] { return int64_t{std::chrono::steady_clock::now().time_since_epoch().count()}; };
    for (int late = 0; late < comm.size(); ++late) {
      if (comm.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      int64_t last_in = now();
      comm.Barrier();
      int64_t first_out = now();
      comm.AllReduce(&last_in, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
      comm.AllReduce(&first_out, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
      EXPECT_LE(last_in, first_out) << "rank " << late << " was late";
    }
  });
}

}  // namespace
}  // namespace deeper
