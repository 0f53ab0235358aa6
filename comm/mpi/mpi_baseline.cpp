#include "comm/mpi/mpi_baseline.h"

#include <mpi.h>

namespace deeper {

struct MpiBaseline::State {
  MPI_Comm comm = MPI_COMM_NULL;
};

MpiBaseline::MpiBaseline() : state_(new State) {
  MPI_Comm_dup(MPI_COMM_WORLD, &state_->comm);
  MPI_Comm_set_errhandler(state_->comm, MPI_ERRORS_ARE_FATAL);
}

MpiBaseline::~MpiBaseline() {
  MPI_Comm_free(&state_->comm);
  delete state_;
}

void MpiBaseline::AllReduce(float* data, size_t count) {
  MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(count), MPI_FLOAT, MPI_SUM, state_->comm);
}

void MpiBaseline::ReduceScatter(const float* data, float* shard, size_t count) {
  MPI_Reduce_scatter_block(data, shard, static_cast<int>(count), MPI_FLOAT, MPI_SUM, state_->comm);
}

void MpiBaseline::AllGather(const void* mine, void* all, size_t bytes) {
  const int n = static_cast<int>(bytes);
  MPI_Allgather(mine, n, MPI_BYTE, all, n, MPI_BYTE, state_->comm);
}

}  // namespace deeper
