#include "comm/mpi/launcher.h"

#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

struct Launcher {
  const char *size, *rank;  // environment variables
  const char* advice;
};

// The innermost launcher comes first: mpirun's ranks inherit the variables of the Slurm step of their daemon.
constexpr Launcher kLaunchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
     "deeper runs with another MPI library than this launcher: use the mpirun of the Open MPI that `ldd` "
     "shows for deeper"},
    {"PMI_SIZE", "PMI_RANK",
     "the MPI library of deeper does not support this launcher: under Slurm use `srun --mpi=pmix`, "
     "otherwise the mpirun of the Open MPI that `ldd` shows for deeper"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID",
     "use `srun --mpi=pmix` (`srun --mpi=list` shows whether this Slurm has it), or deeper-run or mpirun in "
     "the job; for a single process, pass --ntasks=1 to srun"}};

}  // namespace

bool LaunchedByMpi() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(variable) != nullptr) return true;
  return false;
}

absl::Status CheckLaunch(int ranks) {
  for (const auto& [size, rank, advice] : kLaunchers) {
    const char* const started = std::getenv(size);
    int processes = 0;
    if (started == nullptr || !absl::SimpleAtoi(started, &processes)) continue;
    if (processes == ranks) return absl::OkStatus();
    const char* const mine = std::getenv(rank);
    const bool first = mine == nullptr || absl::string_view(mine) == "0";
    const absl::Status refusal =
        first ? FailedPrecondition("the launcher started ", processes, " processes (", size, "=", started,
                                   "), but this one belongs to an MPI job of ", ranks,
                                   ", so each job would train on its own; ", advice)
              : absl::FailedPreconditionError("");
    return WithExitCode(refusal, ExitCode::kUsage);
  }
  return absl::OkStatus();
}

}  // namespace deeper
