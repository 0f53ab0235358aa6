#include "comm/mpi/mpi_bf16_sum.h"

namespace deeper {

MpiBf16Sum::MpiBf16Sum(MpiPeers& peers, float* data, float* residual, size_t count)
    : exchange_(peers), data_(data), residual_(residual), count_(count) {
  const OwnedPart mine = PartOf(peers.rank);
  wire_ = exchange_.Scratch<bf16>(count + mine.size() * static_cast<size_t>(peers.size));
  RoundWithFeedback(data, residual, wire_, count);
  for (int rank = 0; rank < peers.size; ++rank) {
    bf16* const theirs = wire_ + count + mine.size() * static_cast<size_t>(rank);
    parts_.push_back(rank == peers.rank ? wire_ + mine.begin : theirs);
    if (rank == peers.rank) continue;
    exchange_.Receive(theirs, mine.size() * sizeof(bf16), rank);
    const OwnedPart part = PartOf(rank);
    exchange_.Send(wire_ + part.begin, part.size() * sizeof(bf16), rank);
  }
}

bool MpiBf16Sum::Advance() {
  if (!exchange_.Done()) return false;
  if (!summed_) SumMine();
  if (!exchange_.Done()) return false;
  Widen(wire_, data_, count_);
  return true;
}

// Everybody's parts are here, and what was sent of wire_ has left.
void MpiBf16Sum::SumMine() {
  summed_ = true;
  const int self = exchange_.peers().rank;
  const OwnedPart mine = PartOf(self);
  SumParts(parts_, residual_ + mine.begin, wire_ + mine.begin, mine.size());
  for (int rank = 0; rank < exchange_.peers().size; ++rank) {
    if (rank == self) continue;
    const OwnedPart part = PartOf(rank);
    exchange_.Receive(wire_ + part.begin, part.size() * sizeof(bf16), rank);
    exchange_.Send(wire_ + mine.begin, mine.size() * sizeof(bf16), rank);
  }
}

}  // namespace deeper
