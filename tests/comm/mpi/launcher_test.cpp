#include "comm/mpi/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <string>

#include "kernels/base/exit_code.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// With only these variables of launchers.
absl::Status Check(int ranks, const std::map<std::string, std::string>& variables) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMI_RANK",
                           "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"})
    unsetenv(name);
  for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), /*overwrite=*/1);
  return CheckLaunch(ranks);
}

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(CheckLaunch, AcceptsAJobOfAllProcesses) {
  EXPECT_TRUE(Check(1, {}).ok());
  EXPECT_TRUE(Check(1, {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}}).ok());
  EXPECT_TRUE(Check(4, {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "3"}}).ok());
  EXPECT_TRUE(Check(8, {{"OMPI_COMM_WORLD_SIZE", "8"}, {"SLURM_STEP_NUM_TASKS", "2"}}).ok())
      << "mpirun started its daemons as a step of two tasks";
}

TEST(CheckLaunch, RefusesSeparateJobsOnce) {
  const absl::Status first = Check(1, {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "0"}});
  EXPECT_EQ(ExitCodeOf(first), ExitCode::kUsage);
  EXPECT_THAT(Message(first), AllOf(HasSubstr("SLURM_STEP_NUM_TASKS=4"), HasSubstr("srun --mpi=pmix")));
  const absl::Status second = Check(1, {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_PROCID", "1"}});
  EXPECT_EQ(ExitCodeOf(second), ExitCode::kUsage);
  EXPECT_EQ(Message(second), "") << "the first process reports it";
  EXPECT_THAT(Message(Check(1, {{"PMI_SIZE", "4"}, {"PMI_RANK", "0"}})), HasSubstr("PMI_SIZE=4"));
  EXPECT_THAT(Message(Check(1, {{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "0"}})),
              HasSubstr("another MPI library"));
}

// NCCL's interfaces if MPI uses these.
std::string InterfacesWith(const char* of_mpi, const char* of_nccl = nullptr) {
  for (const char* name : {"NCCL_SOCKET_IFNAME", "UCX_NET_DEVICES"}) unsetenv(name);
  setenv("OMPI_MCA_btl_tcp_if_include", of_mpi, /*overwrite=*/1);
  if (of_nccl != nullptr) setenv("NCCL_SOCKET_IFNAME", of_nccl, /*overwrite=*/1);
  ShareNetworkOfMpi();
  unsetenv("OMPI_MCA_btl_tcp_if_include");
  const char* const chosen = std::getenv("NCCL_SOCKET_IFNAME");
  return chosen == nullptr ? "" : chosen;
}

TEST(ShareNetworkOfMpi, KnowsNamesAndSubnets) {
  EXPECT_EQ(InterfacesWith("lo"), "=lo");
  if (access("/sys/class/infiniband", F_OK) != 0) {
    EXPECT_STREQ(std::getenv("UCX_NET_DEVICES"), "lo");
  }
  EXPECT_EQ(InterfacesWith("127.0.0.0/8"), "=lo");
  EXPECT_EQ(InterfacesWith("203.0.113.0/24,127.0.0.1/32"), "=lo");
  EXPECT_EQ(InterfacesWith("127.0.0.2/32"), "");
  EXPECT_EQ(InterfacesWith("203.0.113.0/24"), "");
  EXPECT_EQ(InterfacesWith("127.0.0.0/33,127.0.0.0/x,,l"), "");
}

TEST(ShareNetworkOfMpi, KeepsWhatTheUserSet) {
  EXPECT_EQ(InterfacesWith("lo", "ib0"), "ib0");
}

}  // namespace
}  // namespace deeper
