// Reports ranks that are repeatedly slower than the others. Every step waits for the slowest rank: one bad
// disk, throttled processor or busy machine slows the whole job, and no other figure in the log shows which.
#include "absl/strings/str_format.h"
#include "trainer/monitor/monitor.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr int64_t kWindow = 50;   // steps
constexpr double kSlower = 1.25;  // times the median

// The time of a step on one rank, without waiting for other ranks.
struct RankTimes {
  double data_wait_ms = 0, compute_ms = 0;
  double total_ms() const { return data_wait_ms + compute_ms; }
};

// For two ranks, the figure of the faster one.
double MedianOf(const std::vector<RankTimes>& ranks, const std::function<double(const RankTimes&)>& figure) {
  std::vector<double> values;
  for (const RankTimes& rank : ranks) values.push_back(figure(rank));
  return LowerMedian(values);
}

std::string Sentence(size_t number, const RankTimes& rank, const RankTimes& median, double median_total,
                     int64_t last_step) {
  const bool data = rank.data_wait_ms - median.data_wait_ms > rank.compute_ms - median.compute_ms;
  return absl::StrFormat(
      "rank %d is slow, mostly in %s: steps %d to %d took %.1f ms each, %.2f times the median of all ranks; "
      "waiting for data %.1f ms (median %.1f), computing %.1f ms (median %.1f)",
      number, data ? "waiting for data" : "computing", last_step - kWindow + 1, last_step, rank.total_ms(),
      rank.total_ms() / median_total, rank.data_wait_ms, median.data_wait_ms, rank.compute_ms,
      median.compute_ms);
}

class Stragglers final : public Monitor {
 public:
  explicit Stragglers(const MonitorContext& context)
      : comm_(context.comm), states_(static_cast<size_t>(context.comm.size())) {}

  // Compares the means of windows. Reports a rank that is slow in two in a row, once until it has caught up.
  absl::Status Observe(const Observation& now, std::vector<Event>& events) override {
    if (comm_.size() == 1) return absl::OkStatus();
    sum_.data_wait_ms += now.report.data_wait_ms;
    sum_.compute_ms += now.report.compute_ms;
    if (++seen_ % kWindow != 0) return absl::OkStatus();
    const auto steps = static_cast<double>(kWindow);
    const RankTimes mean = {sum_.data_wait_ms / steps, sum_.compute_ms / steps};
    sum_ = {};
    std::vector<RankTimes> ranks(states_.size());
    comm_.AllGather(&mean, ranks.data(), sizeof mean, {}).Wait();

    const RankTimes median = {MedianOf(ranks, &RankTimes::data_wait_ms),
                              MedianOf(ranks, &RankTimes::compute_ms)};
    const double median_total = MedianOf(ranks, &RankTimes::total_ms);
    for (size_t i = 0; i < ranks.size(); ++i) {
      const bool slow = ranks[i].total_ms() > kSlower * median_total;
      if (slow && states_[i] == State::kSlow) {
        const std::string what = Sentence(i, ranks[i], median, median_total, now.step);
        events.push_back({"straggler", {{"step", now.step}, {"what", what}}, "warning: " + what});
        states_[i] = State::kNamed;
      } else if (!slow || states_[i] == State::kEven) {
        states_[i] = slow ? State::kSlow : State::kEven;
      }
    }
    return absl::OkStatus();
  }

 private:
  enum class State : uint8_t { kEven, kSlow, kNamed };

  Communicator& comm_;
  int64_t seen_ = 0;
  RankTimes sum_;              // over the window so far
  std::vector<State> states_;  // [rank]
};

}  // namespace

std::unique_ptr<Monitor> WatchStragglers(const MonitorContext& context) {
  return std::make_unique<Stragglers>(context);
}

}  // namespace deeper
