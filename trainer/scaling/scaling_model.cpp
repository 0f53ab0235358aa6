#include "trainer/scaling/scaling_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/rng.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr int kSteps = 64;  // simulated; jitter is averaged over them
constexpr size_t kMiB = size_t{1} << 20;

// The distribution of ranks over nodes.
struct Placement {
  Placement(const Cluster& cluster, int ranks)
      : per_node(std::min(cluster.ranks_per_node, ranks)), nodes((ranks + per_node - 1) / per_node) {}
  int per_node, nodes;
};

int Levels(int ranks) {
  return std::bit_width(static_cast<unsigned>(ranks - 1));  // log2, rounded up
}

// Among the ranks of a node, or among nodes: `rounds` messages, and the part of the bytes that is sent.
double Scatter(const Link& link, int members, int rounds, double bytes) {
  if (members == 1) return 0;
  return rounds * link.latency_us / 1e3 + 1e3 * bytes * (members - 1) / members / link.bytes_per_second;
}

double RingMs(const Cluster& cluster, const Placement& placed, int ranks, double bytes) {
  double round = 0;
  if (placed.per_node > 1) round = cluster.within.Ms(bytes / ranks);
  if (placed.nodes > 1) round = std::max(round, cluster.across.Ms(bytes / ranks));
  return 2 * (ranks - 1) * round;
}

// If the ranks are not a power of two, those beyond it send all their bytes first and receive the sums last.
double TreeMs(const Cluster& cluster, const Placement& placed, int ranks, double bytes) {
  const Link& widest = placed.nodes > 1 ? cluster.across : cluster.within;
  const double fold = std::has_single_bit(static_cast<unsigned>(ranks)) ? 0 : widest.Ms(bytes);
  return 2 * (Scatter(cluster.within, placed.per_node, Levels(placed.per_node), bytes) +
              Scatter(cluster.across, placed.nodes, Levels(placed.nodes), bytes) + fold);
}

// The ranks of a node send their parts over its link at the same time; together these are all the bytes.
double HierarchicalMs(const Cluster& cluster, const Placement& placed, double bytes) {
  return 2 * (Scatter(cluster.within, placed.per_node, placed.per_node - 1, bytes) +
              Scatter(cluster.across, placed.nodes, placed.nodes - 1, bytes));
}

// A bucket: the part of backward that completes it, the bytes sent, and the time to sum it.
struct Bucket {
  double ready = 0, bytes = 0, comm_ms = 0;
};

std::vector<Bucket> BucketsOf(const RankStep& step, const Cluster& cluster, const Exchange& exchange,
                              int ranks) {
  if (ranks == 1) return {};
  const std::vector<size_t> bucket_of = PackPieces(step.pieces, exchange.bucket_bytes);
  std::vector<Bucket> buckets;
  for (size_t i = 0; i < bucket_of.size(); ++i) {
    if (bucket_of[i] == buckets.size()) buckets.emplace_back();
    buckets.back().ready = std::max(buckets.back().ready, step.ready[i]);
    buckets.back().bytes += static_cast<double>(step.pieces[i].count * sizeof(float)) * exchange.wire;
  }
  for (Bucket& bucket : buckets)
    bucket.comm_ms = AllReduceMs(exchange.algorithm, cluster, ranks, bucket.bytes);
  return buckets;
}

// Time from the end of backward until the last bucket is summed. The channel serves one bucket at a time, in
// order, once it is ready on the slowest rank.
double ExposedMs(double backward_ms, const std::vector<Bucket>& buckets) {
  double summed = 0;
  for (const Bucket& bucket : buckets) summed = std::max(summed, bucket.ready * backward_ms) + bucket.comm_ms;
  return std::max(0.0, summed - backward_ms);
}

// The bytes that a rank sends per step. No all-reduce sends fewer.
double SentBytes(double gradient_bytes, double wire, int ranks) {
  return 2 * gradient_bytes * wire * (ranks - 1) / ranks;
}

// The ranks of a node that compute at the same time. If there are more, they take turns.
double AtOnce(const Cluster& cluster, int ranks) {
  const double per_node = Placement(cluster, ranks).per_node;
  return cluster.concurrent_ranks == 0 ? per_node : std::clamp(cluster.concurrent_ranks, 1.0, per_node);
}

double Turns(const Cluster& cluster, int ranks) {
  return Placement(cluster, ranks).per_node / AtOnce(cluster, ranks);
}

// How many times longer than usual the ranks take for one step.
struct Slowness {
  double mean = 1, most = 1;
};

// [step]. Log-normal (Box and Muller 1958). Over all ranks and steps the mean is 1.
std::vector<Slowness> DrawSlowness(const Cluster& cluster, int ranks) {
  std::vector<Slowness> steps(kSteps);
  const double deviation = std::sqrt(cluster.jitter * cluster.jitter + cluster.spread * cluster.spread);
  if (deviation == 0) return steps;
  double mean = 0;
  for (uint32_t i = 0; i < kSteps; ++i) {
    Slowness& drawn = steps[i] = {0, 0};
    for (int rank = 0; rank < ranks; ++rank) {
      Rng rng(0, RandomStream("scaling model"), i, static_cast<uint64_t>(rank));
      const double radius = std::sqrt(-2 * std::log(1 - double{rng.NextUnit()}));
      const double slowness =
          std::exp(deviation * radius * std::cos(2 * std::numbers::pi * double{rng.NextUnit()}));
      drawn.mean += slowness / ranks;
      drawn.most = std::max(drawn.most, slowness);
    }
    mean += drawn.mean / kSteps;
  }
  for (Slowness& drawn : steps) drawn = {drawn.mean / mean, drawn.most / mean};
  return steps;
}

Prediction Simulate(const RankStep& step, const Cluster& cluster, const Exchange& exchange, int ranks) {
  const std::vector<Bucket> buckets = BucketsOf(step, cluster, exchange, ranks);
  const double shared = 1 + cluster.sharing * (AtOnce(cluster, ranks) - 1);
  const double turns = Turns(cluster, ranks);
  const double sending_ms =
      cluster.sending_ms_per_byte * SentBytes(GradientBytes(step), exchange.wire, ranks);
  const double loading_ms = cluster.loader_images_per_second == 0
                                ? 0
                                : 1e3 * static_cast<double>(step.batch) / cluster.loader_images_per_second;
  Prediction mean = {.ranks = ranks};
  for (const Slowness& slow : DrawSlowness(cluster, ranks)) {
    const double slowed = turns * slow.most;
    const double backward_ms = (step.backward_ms * shared + sending_ms) * slowed;
    const double slowest_ms = (step.forward_ms * shared + step.update_ms) * slowed + backward_ms;
    const double exposed_ms = ExposedMs(backward_ms, buckets);
    mean.compute_ms += slowest_ms * slow.mean / slow.most / kSteps;
    mean.peer_wait_ms += slowest_ms * (1 - slow.mean / slow.most) / kSteps;
    mean.comm_exposed_ms += exposed_ms / kSteps;
    mean.data_wait_ms += std::max(0.0, loading_ms - slowest_ms - exposed_ms) / kSteps;
  }
  mean.loop_ms = step.loop_ms + cluster.control_ms_per_level * (ranks == 1 ? 0 : Levels(ranks));
  mean.step_ms =
      mean.compute_ms + mean.peer_wait_ms + mean.comm_exposed_ms + mean.data_wait_ms + mean.loop_ms;
  mean.images_per_second = 1e3 * static_cast<double>(step.batch) * ranks / mean.step_ms;
  return mean;
}

}  // namespace

absl::StatusOr<RankStep> StepOf(const Model& model, int64_t batch, double compute_ms) {
  ASSIGN_OR_RETURN(const std::vector<NodeShape> shapes, InferShapes(model, batch));
  RankStep step = {.batch = batch};
  double forward = 0, backward = 0;  // multiply-accumulates
  for (size_t i = model.nodes.size(); i-- > 0;) {
    const OpShape& op = shapes[i].op;
    const auto macs = static_cast<double>(op.macs);
    forward += macs;
    backward += model.nodes[i].input == kImages ? macs : 2 * macs;
    GradientPiece piece;
    for (const ParamSpec& param : op.params)
      if (!IsStatistic(param.role)) piece.count += static_cast<size_t>(param.elements());
    if (piece.count == 0) continue;
    step.pieces.push_back(piece);
    step.ready.push_back(backward);
  }
  for (double& ready : step.ready) ready /= backward;
  step.forward_ms = compute_ms * forward / (forward + backward);
  step.backward_ms = compute_ms * backward / (forward + backward);
  return step;
}

RankStep WithBatch(RankStep step, int64_t batch) {
  const double factor = static_cast<double>(batch) / static_cast<double>(step.batch);
  step.forward_ms *= factor;
  step.backward_ms *= factor;
  step.batch = batch;
  return step;
}

double GradientBytes(const RankStep& step) {
  size_t floats = 0;
  for (const GradientPiece& piece : step.pieces) floats += piece.count;
  return static_cast<double>(floats * sizeof(float));
}

double AllReduceMs(AllReduceAlgorithm algorithm, const Cluster& cluster, int ranks, double bytes) {
  if (ranks == 1) return 0;
  const Placement placed(cluster, ranks);
  const double times[] = {RingMs(cluster, placed, ranks, bytes), TreeMs(cluster, placed, ranks, bytes),
                          HierarchicalMs(cluster, placed, bytes)};  // in the order of AllReduceAlgorithm
  return algorithm == AllReduceAlgorithm::kBest ? std::ranges::min(times)
                                                : times[static_cast<size_t>(algorithm)];
}

Prediction Predict(const RankStep& step, const Cluster& cluster, const Exchange& exchange, int ranks) {
  DEEPER_CHECK(ranks > 0 && step.batch > 0 && step.ms() > 0);
  Prediction prediction = Simulate(step, cluster, exchange, ranks);
  const Prediction one = Simulate(step, cluster, exchange, 1);
  prediction.efficiency = prediction.images_per_second / (one.images_per_second * ranks);
  return prediction;
}

Exchange BestBuckets(const RankStep& step, const Cluster& cluster, Exchange exchange, int ranks) {
  double best = 0;
  Exchange tried = exchange;
  for (tried.bucket_bytes = kMiB; tried.bucket_bytes <= 64 * kMiB; tried.bucket_bytes *= 2) {
    const double rate = Predict(step, cluster, tried, ranks).images_per_second;
    if (rate <= best) continue;
    best = rate;
    exchange.bucket_bytes = tried.bucket_bytes;
  }
  return exchange;
}

int64_t SmallestBatch(const RankStep& step, const Cluster& cluster, const Exchange& exchange, int ranks,
                      double efficiency) {
  for (int64_t batch = 1; batch <= 4096; batch *= 2)
    if (Predict(WithBatch(step, batch), cluster, exchange, ranks).efficiency >= efficiency) return batch;
  return 0;
}

ComputeLine FitCompute(const ComputeSample& small, const ComputeSample& large) {
  const auto images = static_cast<double>(large.batch - small.batch);
  const double ms_per_image = images == 0 ? 0 : (large.ms - small.ms) / images;
  const double fixed_ms = small.ms - ms_per_image * static_cast<double>(small.batch);
  if (images == 0 || fixed_ms < 0)
    return {0, std::max(0.0, (small.ms + large.ms) / static_cast<double>(small.batch + large.batch))};
  if (ms_per_image < 0) return {std::max(0.0, (small.ms + large.ms) / 2), 0};
  return {fixed_ms, ms_per_image};
}

void FitInterference(const ComputeSample& small, const ComputeSample& large, const ComputeLine& alone,
                     int ranks, double gradient_bytes, Cluster& cluster) {
  const double turns = Turns(cluster, ranks), others = AtOnce(cluster, ranks) - 1;
  const auto longer = [&](const ComputeSample& sample) -> ComputeSample {
    return {sample.batch,
            sample.ms / turns - alone.fixed_ms - alone.ms_per_image * static_cast<double>(sample.batch)};
  };
  const ComputeLine extra = FitCompute(longer(small), longer(large));
  cluster.sending_ms_per_byte = extra.fixed_ms / SentBytes(gradient_bytes, 1, ranks);
  cluster.sharing =
      others == 0 || alone.ms_per_image == 0 ? 0 : extra.ms_per_image / alone.ms_per_image / others;
}

// Errors are not weighted. Weights would overrate a network that passes short bursts faster than the rest.
Link FitLink(std::span<const CommSample> all_reduces, int ranks, AllReduceAlgorithm algorithm) {
  const CommSample least = *std::ranges::min_element(
      all_reduces, {}, [](const CommSample& sample) { return std::pair(sample.bytes, sample.ms); });
  double xx = 0, xy = 0;
  for (const auto& [bytes, ms] : all_reduces) {
    xx += (bytes - least.bytes) * (bytes - least.bytes);
    xy += (bytes - least.bytes) * (ms - least.ms);
  }
  DEEPER_CHECK(xx > 0, "a link is measured with two sizes");
  const double ms_per_byte = std::max(xy / xx, 1e-12);  // noise may hide the cost of bytes
  const double fixed = std::max(0.0, least.ms - ms_per_byte * least.bytes);
  const double ring = 2.0 * (ranks - 1);
  const double rounds = algorithm == AllReduceAlgorithm::kRing ? ring : 2.0 * Levels(ranks);
  return {1e3 * fixed / rounds, 1e3 / (ms_per_byte / ring * ranks)};
}

}  // namespace deeper
