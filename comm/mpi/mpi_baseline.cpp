#include "comm/mpi/mpi_baseline.h"

#include <mpi.h>

namespace deeper {

MpiBaseline::MpiBaseline() {
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_ARE_FATAL);
}

void MpiBaseline::AllReduce(float* data, size_t count) {
  MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

void MpiBaseline::ReduceScatter(const float* data, float* shard, size_t count) {
  MPI_Reduce_scatter_block(data, shard, static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

void MpiBaseline::AllGather(const void* mine, void* all, size_t bytes) {
  const int n = static_cast<int>(bytes);
  MPI_Allgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, MPI_COMM_WORLD);
}

}  // namespace deeper
