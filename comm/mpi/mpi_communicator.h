// Ranks are processes started by mpirun or srun; buffers are host memory.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"

namespace deeper {

// Starts MPI with MPI_THREAD_SERIALIZED, as a progress thread polls (comm/mpi/progress_thread.h). With
// MPI_THREAD_MULTIPLE, Open MPI does not use a UCX that was built without it. Only one thread at a time may
// call the collectives of a communicator, as their order must be the same on every rank. Any thread may call
// Abort. Works on a duplicate of MPI_COMM_WORLD whose errors are returned. The destructor ends MPI, so every
// rank must call it. MPI starts only once in a process: share the communicator. No MPI call handles more than
// `max_elements` elements: MPI counts in int, and Open MPI multiplies the counts. Errors: FailedPrecondition
// if MPI was started before or does not support threads; Internal with MPI's message.
absl::StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(size_t max_elements = size_t{1} << 28);

// The library of this process: "Open MPI v4.1.4". May be called before MPI starts.
std::string MpiVersion();

// MPI's blocking collectives, called as in any MPI program, for comparison in `bench comm`. Use between
// MakeMpiCommunicator and the end of that communicator, while none of its collectives is in progress. Counts
// are at most 2^28. A failure ends the job, as MPI does by default.
struct MpiBaseline {
  MpiBaseline();
  // As the members of Communicator with these names, for float sums.
  void AllReduce(float* data, size_t count);
  void ReduceScatter(const float* data, float* shard, size_t count);
  void AllGather(const void* mine, void* all, size_t bytes);
};

}  // namespace deeper
