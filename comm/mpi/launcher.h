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

// Call before MPI_Init. The interfaces of this host that OMPI_MCA_btl_tcp_if_include selects, by name or by
// subnet ("10.0.0.0/24"), become those of NCCL (NCCL_SOCKET_IFNAME) and, without InfiniBand, of UCX
// (UCX_NET_DEVICES), unless these variables are set. Each rank does so, because interfaces of other hosts may
// have other names.
void ShareNetworkOfMpi();

}  // namespace deeper
