// Predicts the speed of data-parallel training on any number of ranks. It simulates steps from one rank's
// step times and the links between ranks. docs/design/scaling-model.md gives formulas, sources and accuracy.
//
// Units are milliseconds, bytes and images; latencies are in microseconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/gradient_reducer.h"
#include "trainer/models/model.h"

namespace deeper {

// The time of one message is latency + bytes / bandwidth.
struct Link {
  double latency_us = 0;
  double bytes_per_second = 0;
  double Ms(double bytes) const { return latency_us / 1e3 + 1e3 * bytes / bytes_per_second; }
};

struct Cluster {
  int ranks_per_node = 1;
  Link within = {};  // between two ranks of a node, each way
  Link across = {};  // of a node, each way, shared by its ranks
  // Standard deviations of the logarithm of a rank's compute time: from step to step, and between ranks. Both
  // are drawn anew for every rank and step: the mean is then over all clusters with such ranks.
  double jitter = 0, spread = 0;
  double loader_images_per_second = 0;  // of a rank; 0: no limit
  // Relative increase of compute time for each other rank on the node: they share memory and caches.
  double sharing = 0;
  // How many ranks of a node compute at full speed; more take turns. 0: all of them.
  double concurrent_ranks = 0;
  // Extra compute time per byte of gradients that a rank sends: on CPUs, sending and summing need cores.
  double sending_ms_per_byte = 0;
  // Small messages between steps, for each doubling of the number of ranks.
  double control_ms_per_level = 0;
};

// One rank's share of a step, as it is without other ranks.
struct RankStep {
  int64_t batch = 0;  // images
  double forward_ms = 0, backward_ms = 0;
  double update_ms = 0;                    // and all computing that does not depend on the batch
  double loop_ms = 0;                      // between steps: logs, and whatever the run does there
  std::vector<GradientPiece> pieces = {};  // in the order in which backward finishes them
  std::vector<double> ready = {};          // [piece]; the fraction of backward done by then, 0 to 1

  double ms() const { return forward_ms + backward_ms + update_ms; }  // of computing
};

// The step of a network: `compute_ms` on `batch` images, divided by the layers' multiply-accumulates.
// Backward has twice forward's, except in the layer that reads the images. InvalidArgument as InferShapes.
absl::StatusOr<RankStep> StepOf(const Model& model, int64_t batch, double compute_ms);
// The same on another number of images: forward and backward in proportion.
RankStep WithBatch(RankStep step, int64_t batch);
// In fp32.
double GradientBytes(const RankStep& step);

enum class AllReduceAlgorithm {
  kRing,          // through all ranks, node by node
  kTree,          // recursive halving and doubling, neighbours first
  kHierarchical,  // rings within nodes, and rings across nodes for each part
  kBest,          // the fastest for these bytes
};

struct Exchange {
  AllReduceAlgorithm algorithm = AllReduceAlgorithm::kBest;
  size_t bucket_bytes = size_t{8} << 20;  // GradientReducer's
  double wire = 1;                        // bytes sent for each byte of fp32 gradients: 0.5 in bf16
};

double AllReduceMs(AllReduceAlgorithm algorithm, const Cluster& cluster, int ranks, double bytes);

struct Prediction {
  int ranks = 1;
  // Means over simulated steps. A step is the sum of the other five.
  double step_ms = 0;
  double compute_ms = 0;       // mean over the ranks
  double peer_wait_ms = 0;     // for the slowest of them
  double comm_exposed_ms = 0;  // communication that backward did not hide
  double data_wait_ms = 0;     // for the loader
  double loop_ms = 0;          // between steps
  double images_per_second = 0;
  double efficiency = 1;  // images_per_second over `ranks` times those of one rank
};

// Deterministic. Some thousands of ranks take milliseconds.
Prediction Predict(const RankStep& step, const Cluster& cluster, const Exchange& exchange, int ranks);

// With the fastest bucket size from 1 to 64 MiB; the wire format is unchanged.
Exchange BestBuckets(const RankStep& step, const Cluster& cluster, Exchange exchange, int ranks);
// The smallest power of two of images per rank that reaches this efficiency; 0: none up to 4096 does.
int64_t SmallestBatch(const RankStep& step, const Cluster& cluster, const Exchange& exchange, int ranks,
                      double efficiency);

// A measured compute time of one rank's step.
struct ComputeSample {
  int64_t batch = 0;
  double ms = 0;
};
// Milliseconds of a batch: fixed + per_image x images. Neither is negative.
struct ComputeLine {
  double fixed_ms = 0, ms_per_image = 0;
};
// Through both samples. If noise makes a part negative, that part is 0 and the line goes through their mean.
// If both have the same batch, the fixed part is 0.
ComputeLine FitCompute(const ComputeSample& small, const ComputeSample& large);
// Sets `cluster.sharing` and `cluster.sending_ms_per_byte` from the extra compute time of `ranks` ranks (at
// least 2) over one `alone`, on both batches. What grows with the batch is sharing, the rest sending. Reads
// `cluster.ranks_per_node` and `cluster.concurrent_ranks`.
void FitInterference(const ComputeSample& small, const ComputeSample& large, const ComputeLine& alone,
                     int ranks, double gradient_bytes, Cluster& cluster);

// One collective, measured.
struct CommSample {
  double bytes = 0, ms = 0;
};
// The link that explains these times of all-reduces between `ranks` ranks (at least 2): its latency from the
// smallest size, its bandwidth by least squares from there on. Needs at least two sizes. `algorithm`: kRing,
// or kBest, whose small all-reduces are trees.
Link FitLink(std::span<const CommSample> all_reduces, int ranks,
             AllReduceAlgorithm algorithm = AllReduceAlgorithm::kRing);

}  // namespace deeper
