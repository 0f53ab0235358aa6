#include "comm/mpi/mpi_exchange.h"

#include <algorithm>
#include <utility>

namespace deeper {
namespace {

constexpr int kTags = 32768;  // that every MPI has

}  // namespace

MpiExchange::MpiExchange(MpiPeers& peers) : peers_(peers), tag_(peers.tag = (peers.tag + 1) % kTags) {
  if (peers_.scratch.empty()) return;
  scratch_ = std::move(peers_.scratch.back());
  peers_.scratch.pop_back();
}

MpiExchange::~MpiExchange() {
  peers_.scratch.push_back(std::move(scratch_));
}

std::byte* MpiExchange::ScratchBytes(size_t bytes) {
  if (scratch_.size() < bytes) scratch_ = std::vector<std::byte>(bytes);
  return scratch_.data();
}

void MpiExchange::Send(const void* data, size_t bytes, int to) {
  const auto* from = static_cast<const std::byte*>(data);
  for (size_t first = 0; first < bytes; first += peers_.max_bytes) {
    const int n = static_cast<int>(std::min(peers_.max_bytes, bytes - first));
    peers_.check("MPI_Isend", MPI_Isend(from + first, n, MPI_BYTE, to, tag_, peers_.comm,
                                        &under_way_.emplace_back(MPI_REQUEST_NULL)));
  }
}

void MpiExchange::Receive(void* data, size_t bytes, int from) {
  auto* into = static_cast<std::byte*>(data);
  for (size_t first = 0; first < bytes; first += peers_.max_bytes) {
    const int n = static_cast<int>(std::min(peers_.max_bytes, bytes - first));
    peers_.check("MPI_Irecv", MPI_Irecv(into + first, n, MPI_BYTE, from, tag_, peers_.comm,
                                        &under_way_.emplace_back(MPI_REQUEST_NULL)));
  }
}

bool MpiExchange::Done() {
  int done = 0;
  peers_.check("MPI_Testall", MPI_Testall(static_cast<int>(under_way_.size()), under_way_.data(), &done,
                                          MPI_STATUSES_IGNORE));
  if (done) under_way_.clear();
  return done != 0;
}

}  // namespace deeper
