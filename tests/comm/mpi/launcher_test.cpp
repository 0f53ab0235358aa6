#include "comm/mpi/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace deeper
