// Is a cluster fit to train on, and what bounds training there: `deeper doctor` on what every rank measured.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/exit_code.h"
#include "trainer/scaling/scaling_model.h"

namespace deeper {

// What one rank measured. Plain memory: ranks exchange it as bytes. 0: not known, or not asked for.
struct RankHealth {
  char host[64] = {};
  char device[192] = {};
  char network[16] = {};                // interface of the host with the highest nominal bandwidth
  double nominal_bytes_per_second = 0;  // of that interface
  double link_latency_us = 0;           // from the rank before this one, in a ring
  double link_bytes_per_second = 0;     // likewise
  double compute_ms = 0;                // of a training step, without waiting
  double data_images_per_second = 0;    // that its loader delivers while all others work too
  double clock_skew_seconds = 0;        // against rank 0
  double memory_bytes = 0;              // available on the device
  double clock_mhz = 0;                 // of the processor
  double free_bytes = 0;                // where checkpoints go
  int cores = 0;                        // that it may use
  bool sees_lock = true;                // of rank 0 on the directory for checkpoints
};

struct Finding {
  bool fit = true;  // false: an expensive job should not start like this
  ExitCode code = ExitCode::kDone;
  std::string text;  // what, where, and what to do
};

// A figure counts as slow that is worse than the median of its kind by kSlower (links: kSlowerLink), and by
// three deviations where there are enough figures to tell: 1.4826 times their median distance from the median
// estimates the standard deviation of normal ones (Rousseeuw and Croux 1993).
inline constexpr double kSlower = 1.25, kSlowerLink = 2;
// A link between hosts should give this part of what the slower of their interfaces says.
inline constexpr double kLeastOfNominal = 0.25;
// Beyond these, log lines of several hosts mislead.
inline constexpr double kMostSkewSeconds = 1;

struct JobWants {
  double checkpoint_bytes = 0;   // that must be free; 0: nothing is saved
  double images_per_second = 0;  // of a rank: a loader that delivers them is fast enough
};

// ranks: [rank]. Unfit findings first, in the order communication, data, checkpoints.
std::vector<Finding> Examine(const std::vector<RankHealth>& ranks, const JobWants& wants);
// OK, or all that is unfit, with the first one's exit code.
absl::Status VerdictOf(const std::vector<Finding>& findings);

// What most of the time that ranks do not compute goes to: "communication", "data" or "slower ranks"; or
// "computing", where that is at most 5 % of a step.
std::string Bottleneck(const Prediction& prediction);
// What to change about that. `prediction` is that of `step` on `cluster` with `exchange`.
std::string Advice(const RankStep& step, const Cluster& cluster, const Exchange& exchange,
                   const Prediction& prediction);

}  // namespace deeper
