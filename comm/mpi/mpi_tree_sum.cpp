#include "comm/mpi/mpi_tree_sum.h"

#include <bit>
#include <string>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/parallel.h"

namespace deeper {
namespace {

DEEPER_SIMD void Add(const float* x, float* into, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] += x[i];
}

size_t LevelsOfTree(int ranks) {
  DEEPER_CHECK(std::has_single_bit(static_cast<unsigned>(ranks)),
               "a tree over " + std::to_string(ranks) + " ranks");
  return static_cast<size_t>(std::countr_zero(static_cast<unsigned>(ranks)));
}

}  // namespace

MpiTreeSum::MpiTreeSum(MpiPeers& peers, float* data, size_t count)
    : exchange_(peers),
      data_(data),
      theirs_(exchange_.Scratch<float>((count + 1) / 2)),
      levels_(LevelsOfTree(peers.size)),
      kept_{{0, count}} {
  if (levels_ > 0) Halve(0);
}

bool MpiTreeSum::Advance() {
  while (round_ < 2 * levels_) {
    if (!exchange_.Done()) return false;
    if (round_ < levels_) Add(theirs_, data_ + kept_.back().begin, kept_.back().size());
    ++round_;
    if (round_ < levels_) {
      Halve(round_);
    } else if (round_ < 2 * levels_) {
      Double(2 * levels_ - 1 - round_);
    }
  }
  return true;
}

// Of two partners, the lower keeps the first half.
void MpiTreeSum::Halve(size_t level) {
  const Range all = kept_.back();
  const size_t middle = all.begin + all.size() / 2;
  Range keep = {all.begin, middle}, give = {middle, all.end};
  if (Partner(level) < exchange_.peers().rank) std::swap(keep, give);
  kept_.push_back(keep);
  exchange_.Receive(theirs_, keep.bytes(), Partner(level));
  exchange_.Send(data_ + give.begin, give.bytes(), Partner(level));
}

// Halve(level) backwards: the partner has summed up the other half of kept_[level].
void MpiTreeSum::Double(size_t level) {
  const Range mine = kept_[level + 1], all = kept_[level];
  const Range theirs = mine.begin == all.begin ? Range{mine.end, all.end} : Range{all.begin, mine.begin};
  exchange_.Receive(data_ + theirs.begin, theirs.bytes(), Partner(level));
  exchange_.Send(data_ + mine.begin, mine.bytes(), Partner(level));
}

}  // namespace deeper
