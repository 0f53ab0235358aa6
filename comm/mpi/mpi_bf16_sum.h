// Communicator::SumInBf16 by messages: every rank sends each owner its part, and gets the owners' sums. In
// both directions 2 (size - 1) / size of count bf16s, half of what an all-reduce of floats takes.
#pragma once

#include <cstddef>
#include <vector>

#include "comm/bf16_sum.h"
#include "comm/mpi/mpi_exchange.h"
#include "comm/mpi/progress_thread.h"

namespace deeper {

// `peers`, `data` and `residual` must outlive it.
class MpiBf16Sum final : public ProgressThread::Operation {
 public:
  MpiBf16Sum(MpiPeers& peers, float* data, float* residual, size_t count);

  bool Advance() override;
  const char* name() const override { return "sum in bf16"; }

 private:
  OwnedPart PartOf(int rank) const { return {count_, exchange_.peers().size, rank}; }
  void SumMine();

  MpiExchange exchange_;
  float* const data_;
  float* const residual_;
  const size_t count_;
  bf16* wire_ = nullptr;            // [count]
  std::vector<const bf16*> parts_;  // [rank], of what this rank owns
  bool summed_ = false;
};

}  // namespace deeper
