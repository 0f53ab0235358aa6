// What started this process, as its environment says.
#pragma once

#include "absl/status/status.h"

namespace deeper {

// Whether a launcher (mpirun, srun with PMI or PMIx) started this process as one of its ranks. Reads the
// environment instead of starting MPI, so that a plain `deeper train` never starts MPI's daemon.
bool LaunchedByMpi();

// OK if the launcher started `ranks` processes, or if there was none. Otherwise, the MPI library does not
// know the launcher, and every process would be a job of its own: FailedPrecondition with ExitCode::kUsage.
// Only the first process has a message, for the user; the others have an empty one.
absl::Status CheckLaunch(int ranks);

}  // namespace deeper
