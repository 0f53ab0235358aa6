// A sum over ranks in the order of one fixed tree: recursive halving, then recursive doubling (Thakur,
// Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", 2005). Every rank
// sends and receives 2 (size - 1) / size of the data, as little as any all-reduce can.
#pragma once

#include <cstddef>
#include <vector>

#include "comm/mpi/mpi_exchange.h"
#include "comm/mpi/progress_thread.h"

namespace deeper {

// data: [count], replaced by the sum. Halving starts with neighbours: pairs, then pairs of pairs, so that the
// order is ((r0 + r1) + (r2 + r3)) + ... whichever rank adds up an element. The number of ranks must be a
// power of two. `peers` and `data` must outlive it.
class MpiTreeSum final : public ProgressThread::Operation {
 public:
  MpiTreeSum(MpiPeers& peers, float* data, size_t count);

  bool Advance() override;
  const char* name() const override { return "tree sum"; }

 private:
  struct Range {
    size_t begin = 0, end = 0;
    size_t size() const { return end - begin; }
    size_t bytes() const { return size() * sizeof(float); }
  };

  int Partner(size_t level) const { return exchange_.peers().rank ^ (1 << level); }
  void Halve(size_t level);
  void Double(size_t level);

  MpiExchange exchange_;
  float* const data_;
  float* const theirs_;      // of the half that is being added up
  const size_t levels_;      // halvings, and doublings
  size_t round_ = 0;         // of 2 levels_
  std::vector<Range> kept_;  // [halvings begun + 1]: what this rank adds up from there on
};

}  // namespace deeper
