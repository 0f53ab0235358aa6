// The suite on MPI, one process per rank:  mpirun -n 3 comm_mpi_tests [--max_elements=N]
// A failure on any rank is the exit code of every rank. --fail_rank=R fails on purpose on rank R.
// --abort_rank=R calls Abort(5) there while the others wait in a barrier; ctest checks how the launcher
// reacts.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "comm/mpi/mpi_communicator.h"
#include "tests/comm/on_every_backend.h"

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
  ASSERT_NE(launched, nullptr);
  EXPECT_EQ(world->size(), std::atoi(launched))
      << "each rank is a job of its own: not the MPI of this mpirun?";
  EXPECT_EQ(world->local_size(), world->size());
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
