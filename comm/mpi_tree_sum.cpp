#include "comm/mpi_tree_sum.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/check.h"
#include "kernels/parallel.h"

namespace deeper {
namespace {

DEEPER_SIMD void Add(const float* x, float* into, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] += x[i];
}

}  // namespace

MpiTreeSum::MpiTreeSum(MpiPeers& peers, int tag, float* data, size_t count)
    : peers_(peers), tag_(tag), data_(data), kept_{{0, count}} {
  const auto size = static_cast<unsigned>(peers_.size);
  DEEPER_CHECK(std::has_single_bit(size), "a tree over " + std::to_string(size) + " ranks");
  levels_ = static_cast<size_t>(std::countr_zero(size));
  if (peers_.scratch.empty()) peers_.scratch.emplace_back();
  theirs_ = std::move(peers_.scratch.back());
  peers_.scratch.pop_back();
  if (levels_ > 0) Halve(0);
}

MpiTreeSum::~MpiTreeSum() {
  peers_.scratch.push_back(std::move(theirs_));
}

bool MpiTreeSum::Advance() {
  while (round_ < 2 * levels_) {
    if (!ExchangeDone()) return false;
    if (round_ < levels_) Add(theirs_.data(), data_ + kept_.back().begin, kept_.back().size());
    ++round_;
    if (round_ < levels_)
      Halve(round_);
    else if (round_ < 2 * levels_)
      Double(2 * levels_ - 1 - round_);
  }
  return true;
}

// Of two partners, the lower keeps the first half.
void MpiTreeSum::Halve(size_t level) {
  const Range all = kept_.back();
  const size_t middle = all.begin + all.size() / 2;
  Range keep = {all.begin, middle}, give = {middle, all.end};
  if (Partner(level) < peers_.rank) std::swap(keep, give);
  kept_.push_back(keep);
  theirs_.resize(std::max(theirs_.size(), keep.size()));
  Exchange(Partner(level), give, theirs_.data(), keep.size());
}

// Halve(level) backwards: the partner has summed up the other half of kept_[level].
void MpiTreeSum::Double(size_t level) {
  const Range mine = kept_[level + 1], all = kept_[level];
  const Range theirs = mine.begin == all.begin ? Range{mine.end, all.end} : Range{all.begin, mine.begin};
  Exchange(Partner(level), mine, data_ + theirs.begin, theirs.size());
}

void MpiTreeSum::Exchange(int partner, Range send, float* receive, size_t receive_count) {
  requests_.clear();
  const auto in_parts = [this](const char* call, size_t count, const auto& start) {
    for (size_t first = 0; first < count; first += peers_.max_elements) {
      const int n = static_cast<int>(std::min(peers_.max_elements, count - first));
      peers_.check(call, start(first, n, &requests_.emplace_back(MPI_REQUEST_NULL)));
    }
  };
  in_parts("MPI_Irecv", receive_count, [&](size_t first, int n, MPI_Request* request) {
    return MPI_Irecv(receive + first, n, MPI_FLOAT, partner, tag_, peers_.comm, request);
  });
  in_parts("MPI_Isend", send.size(), [&](size_t first, int n, MPI_Request* request) {
    return MPI_Isend(data_ + send.begin + first, n, MPI_FLOAT, partner, tag_, peers_.comm, request);
  });
}

bool MpiTreeSum::ExchangeDone() {
  int done = 0;
  peers_.check("MPI_Testall",
               MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE));
  return done != 0;
}

}  // namespace deeper
