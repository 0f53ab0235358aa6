// Ranks that are processes started by mpirun or srun, over host memory.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "comm/communicator.h"

namespace deeper {

// True where a launcher (mpirun, srun with PMI or PMIx) started this process as one of its ranks. Asks the
// environment, not MPI: a plain `deeper train` never starts MPI's daemon.
bool LaunchedByMpi();

// Starts MPI, asking for MPI_THREAD_MULTIPLE; at least MPI_THREAD_SERIALIZED is needed, as a progress thread
// polls (comm/mpi/progress_thread.h). The collectives of a communicator come from one thread at a time, as
// their order must be the same on every rank; Abort may be called by any. Works on a duplicate of
// MPI_COMM_WORLD, with errors returned to us; the destructor ends MPI, so every rank must get there. MPI
// starts once in the life of a process: share the communicator. No MPI call handles more than `max_elements`
// elements: MPI counts in int, and Open MPI multiplies these. Errors: FailedPrecondition if MPI was started
// before or cannot serve threads; Internal with MPI's own words.
absl::StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(size_t max_elements = size_t{1} << 28);

// MPI's own blocking collectives, called as any MPI program would call them: what `bench comm` compares with.
// Between MakeMpiCommunicator and the end of that communicator, while no collective of it is under way.
// Counts are at most 2^28. A failure ends the job, as MPI does by default.
struct MpiBaseline {
  MpiBaseline();
  // As the members of Communicator of these names, for float sums.
  void AllReduce(float* data, size_t count);
  void ReduceScatter(const float* data, float* shard, size_t count);
  void AllGather(const void* mine, void* all, size_t bytes);
};

}  // namespace deeper
