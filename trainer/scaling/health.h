// Whether a cluster is fit for training, and what limits it, from the measurements of `deeper doctor`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/exit_code.h"
#include "trainer/scaling/scaling_model.h"

namespace deeper {

// The measurements of one rank. Ranks exchange it as bytes. 0: not known, or not measured.
struct RankHealth {
  char host[64] = {};
  char device[192] = {};
  char network[16] = {};                // interface of the host with the highest nominal bandwidth
  double nominal_bytes_per_second = 0;  // of that interface
  double link_latency_us = 0;           // from the rank before this one, in a ring
  double link_bytes_per_second = 0;     // likewise
  double streams_bytes_per_second = 0;  // likewise, by several TCP connections (streams.h)
  double compute_ms = 0;                // of a training step, without waiting
  double data_images_per_second = 0;    // of its loader while all others load too
  double clock_skew_seconds = 0;        // against rank 0
  double memory_bytes = 0;              // available on the device
  double clock_mhz = 0;                 // of the processor
  double free_bytes = 0;                // where checkpoints go
  double shared_memory_bytes = 0;       // size of /dev/shm
  int cores = 0;                        // that it may use
  bool sees_lock = true;                // of rank 0 on the checkpoint directory
};

struct Finding {
  bool fit = true;  // false: do not start an expensive job
  ExitCode code = ExitCode::kDone;
  std::string text;  // what, where, and what to do
};

// A figure is slow if it is worse than the median of its kind by the factor kSlower (links: kSlowerLink) and,
// if there are enough figures, by three deviations. 1.4826 times their median distance from the median
// estimates the standard deviation of normal ones (Rousseeuw and Croux 1993).
inline constexpr double kSlower = 1.25, kSlowerLink = 2;
// A link between hosts should give this fraction of the nominal speed of the slower interface. But one rank
// at a time sends, often over one TCP connection, which no interface beyond 40 Gbit/s makes faster: not more
// than kMostOfOneStream bytes/s are expected of it. Several TCP connections at once should give the fraction,
// unless MPI is faster than they are, and so does not use TCP.
inline constexpr double kLeastOfNominal = 0.25, kMostOfOneStream = 1.25e9;
inline constexpr int kStreams = 8;  // TCP connections at once
// If they are faster than a link by this factor, several connections are advised.
inline constexpr double kWorthwhileStreams = 2;
// Ranks of one host exchange data in /dev/shm. Docker gives a container 64 MiB.
inline constexpr double kLeastSharedMemory = 512 << 20;
// With larger skews, log lines of several hosts are misleading.
inline constexpr double kMostSkewSeconds = 1;

struct JobWants {
  double checkpoint_bytes = 0;   // that must be free; 0: nothing is saved
  double images_per_second = 0;  // per rank; a loader that delivers them is fast enough
};

// ranks: [rank]. Unfit findings first, in the order communication, data, checkpoints.
std::vector<Finding> Examine(const std::vector<RankHealth>& ranks, const JobWants& wants);
// OK, or all unfit findings, with the exit code of the first.
absl::Status VerdictOf(const std::vector<Finding>& findings);

// The main cause of time in which ranks do not compute: "communication", "data" or "slower ranks"; or
// "computing" if that time is at most 5 % of a step.
std::string Bottleneck(const Prediction& prediction);
// What to change about the bottleneck. `prediction` is that of `step` on `cluster` with `exchange`.
std::string Advice(const RankStep& step, const Cluster& cluster, const Exchange& exchange,
                   const Prediction& prediction);

}  // namespace deeper
