// A sum over ranks in the order of one fixed tree, by point-to-point messages: recursive halving, then
// recursive doubling (Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in
// MPICH", 2005). Every rank sends and receives 2 (size - 1) / size of the data, as little as any all-reduce
// can.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "comm/progress_thread.h"

namespace deeper {

// What point-to-point operations share; of one communicator. For use under the lock of its ProgressThread.
struct MpiPeers {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 1;
  size_t max_elements = 0;                                // of one message
  std::function<void(const char* call, int code)> check;  // ends the job if the call failed
  std::vector<std::vector<float>> scratch;                // to be used again, so that steps allocate nothing
};

// data: [count], replaced by the sum. Halving starts with neighbours: pairs, then pairs of pairs, so that the
// order is ((r0 + r1) + (r2 + r3)) + ... whichever rank adds up an element. `size` must be a power of two.
// `tag` tells apart the sums that are under way at once. `peers` and `data` must outlive it.
class MpiTreeSum final : public ProgressThread::Operation {
 public:
  MpiTreeSum(MpiPeers& peers, int tag, float* data, size_t count);
  ~MpiTreeSum() override;

  bool Advance() override;

 private:
  struct Range {
    size_t begin = 0, end = 0;
    size_t size() const { return end - begin; }
  };

  int Partner(size_t level) const { return peers_.rank ^ (1 << level); }
  void Halve(size_t level);
  void Double(size_t level);
  void Exchange(int partner, Range send, float* receive, size_t receive_count);
  bool ExchangeDone();

  MpiPeers& peers_;
  const int tag_;
  float* const data_;
  std::vector<Range> kept_;  // [halvings begun + 1]: what this rank adds up from there on
  std::vector<float> theirs_;
  std::vector<MPI_Request> requests_;
  size_t levels_ = 0, round_ = 0;  // rounds: `levels_` halvings, as many doublings
};

}  // namespace deeper
