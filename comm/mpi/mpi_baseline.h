// MPI's own blocking collectives, called as any MPI program would call them: what `bench comm` compares with.
#pragma once

#include <cstddef>

namespace deeper {

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
