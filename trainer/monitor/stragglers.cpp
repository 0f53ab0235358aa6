#include "trainer/monitor/stragglers.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace deeper {
namespace {

// The lower one of two in the middle: of two ranks, the faster.
template <class Figure>
double Median(const std::vector<RankTimes>& ranks, const Figure& figure) {
  std::vector<double> values;
  for (const RankTimes& rank : ranks) values.push_back(figure(rank));
  const auto middle = values.begin() + (std::ssize(values) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

RankTimes MedianTimes(const std::vector<RankTimes>& ranks) {
  return {Median(ranks, [](const RankTimes& rank) { return rank.data_wait_ms; }),
          Median(ranks, [](const RankTimes& rank) { return rank.compute_ms; })};
}

std::string Sentence(size_t number, const RankTimes& rank, const RankTimes& median, double median_total,
                     int64_t first_step, int64_t last_step) {
  const bool data = rank.data_wait_ms - median.data_wait_ms > rank.compute_ms - median.compute_ms;
  return absl::StrFormat(
      "rank %d is slow, mostly in %s: steps %d to %d took it %.1f ms each, %.2f times the median rank's; "
      "waiting for data %.1f ms (median %.1f), computing %.1f ms (median %.1f)",
      number, data ? "waiting for data" : "computing", first_step, last_step, rank.total_ms(),
      rank.total_ms() / median_total, rank.data_wait_ms, median.data_wait_ms, rank.compute_ms,
      median.compute_ms);
}

}  // namespace

Stragglers::Stragglers(Communicator& comm, int64_t window)
    : comm_(comm), window_(window), states_(static_cast<size_t>(comm.size())) {}

std::vector<std::string> Stragglers::Observe(int64_t step, const RankTimes& mine) {
  if (comm_.size() == 1) return {};
  sum_.data_wait_ms += mine.data_wait_ms;
  sum_.compute_ms += mine.compute_ms;
  if (++seen_ % window_ != 0) return {};
  const auto steps = static_cast<double>(window_);
  const RankTimes mean = {sum_.data_wait_ms / steps, sum_.compute_ms / steps};
  sum_ = {};
  std::vector<RankTimes> ranks(states_.size());
  comm_.AllGather(&mean, ranks.data(), sizeof mean, {}).Wait();

  const RankTimes median = MedianTimes(ranks);
  const double median_total = Median(ranks, [](const RankTimes& rank) { return rank.total_ms(); });
  std::vector<std::string> sentences;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const bool slow = ranks[i].total_ms() > kSlower * median_total;
    if (slow && states_[i] == State::kSlow) {
      sentences.push_back(Sentence(i, ranks[i], median, median_total, step - window_ + 1, step));
      states_[i] = State::kNamed;
    } else if (!slow || states_[i] == State::kEven) {
      states_[i] = slow ? State::kSlow : State::kEven;
    }
  }
  return sentences;
}

}  // namespace deeper
