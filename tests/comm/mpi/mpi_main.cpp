// The suite on MPI, one process per rank:  mpirun -n 3 comm_mpi_tests [--max_elements=N]
// A failure on any rank is the exit code of every rank. --fail_rank=R fails on purpose on rank R.
// --abort_rank=R calls Abort(5) there while the others wait in a barrier; ctest checks how the launcher
// reacts.
#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/mpi/launcher.h"
#include "comm/mpi/mpi_communicator.h"
#include "tests/comm/on_every_backend.h"

namespace {

int messages = 0;  // sent by this rank

}  // namespace

// In place of the library's, for all code of this program.
extern "C" int MPI_Isend(const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                         MPI_Request* request) {
  ++messages;
  return PMPI_Isend(data, count, type, to, tag, comm, request);
}

namespace deeper {
namespace {

std::unique_ptr<Communicator> world;

Backend Mpi() {
  return {"Mpi", [](const RankBody& body) { body(*world); }};
}

INSTANTIATE_TEST_SUITE_P(Comm, OnEveryBackend, testing::Values(Mpi()), BackendName);

TEST(MpiCommunicator, StartsOnce) {
  const auto second = MakeMpiCommunicator();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(second.status().message().find("share its communicator"), std::string::npos) << second.status();
}

TEST(MpiCommunicator, KnowsItsLauncher) {
  EXPECT_TRUE(LaunchedByMpi());
  const char* launched = std::getenv("OMPI_COMM_WORLD_SIZE");
  if (launched == nullptr) launched = std::getenv("PMI_SIZE");  // of MPICH
  ASSERT_NE(launched, nullptr);
  EXPECT_EQ(world->size(), std::atoi(launched))
      << "each rank is a job of its own: not the MPI of this mpirun?";
  EXPECT_EQ(world->local_size(), world->size());
  EXPECT_TRUE(CheckLaunch(world->size()).ok());
  EXPECT_FALSE(CheckLaunch(world->size() + 1).ok());
}

// Such collectives are in every step.
TEST(MpiCommunicator, SmallCollectivesSendLogarithmicallyManyMessages) {
  const int rounds = std::bit_width(static_cast<unsigned>(world->size() - 1));
  const auto sent_by = [](const auto& collective) {
    world->Barrier();
    messages = 0;
    collective();
    return messages;
  };
  int64_t value = world->rank();
  const int reduction =
      sent_by([&] { world->AllReduce(&value, 1, CommType::kI64, ReduceOp::kMax, {}).Wait(); });
  EXPECT_EQ(value, world->size() - 1);
  EXPECT_GE(reduction, std::min(1, rounds));
  EXPECT_LE(reduction, rounds);
  std::vector<int> all(static_cast<size_t>(world->size()));
  const int mine = world->rank();
  EXPECT_EQ(sent_by([&] { world->AllGather(&mine, all.data(), sizeof mine, {}).Wait(); }), rounds);
  for (int rank = 0; rank < world->size(); ++rank) EXPECT_EQ(all[static_cast<size_t>(rank)], rank);
}

// MPI_MAX of a NaN depends on the order of its arguments.
TEST(MpiCommunicator, SmallReductionsOfNanAgree) {
  for (int root = 0; root < world->size(); ++root) {
    for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin, ReduceOp::kSum}) {
      double value = world->rank() == root ? std::numeric_limits<double>::quiet_NaN() : world->rank();
      world->AllReduce(&value, 1, CommType::kF64, op, {}).Wait();
      std::vector<double> all(static_cast<size_t>(world->size()));
      world->AllGather(&value, all.data(), sizeof value, {}).Wait();
      for (const double other : all)
        EXPECT_EQ(std::bit_cast<uint64_t>(other), std::bit_cast<uint64_t>(value));
    }
  }
}

long Option(int argc, char** argv, const std::string& name, long otherwise) {
  const std::string prefix = "--" + name + "=";
  for (int i = 1; i < argc; ++i)
    if (std::string(argv[i]).rfind(prefix, 0) == 0) return std::atol(argv[i] + prefix.size());
  return otherwise;
}

int Main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto made = MakeMpiCommunicator(static_cast<size_t>(Option(argc, argv, "max_elements", 1 << 28)));
  if (!made.ok()) {
    std::fprintf(stderr, "%s\n", made.status().ToString().c_str());
    return 1;
  }
  world = *std::move(made);
  if (const long rank = Option(argc, argv, "abort_rank", -1); rank >= 0) {
    if (world->rank() == rank) world->Abort(kCommunicationExitCode, "aborted on purpose");
    world->Barrier();
    return 0;  // not reached: the barrier lacks a rank
  }
  int64_t failed = RUN_ALL_TESTS() != 0 || world->rank() == Option(argc, argv, "fail_rank", -1);
  world->AllReduce(&failed, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
  world.reset();
  return static_cast<int>(failed);
}

}  // namespace
}  // namespace deeper

int main(int argc, char** argv) {
  return deeper::Main(argc, argv);
}
