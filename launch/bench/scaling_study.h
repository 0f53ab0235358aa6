// Measures the scaling of training with runs of `train` on several numbers of ranks, and calibrates the model
// of it (trainer/scaling/scaling_model.h) on some of these runs.
#pragma once

#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "trainer/scaling/scaling_model.h"

namespace deeper {

struct StudyOptions {
  std::vector<int64_t> ranks, batches;  // ascending numbers of ranks; images per rank. At least one each
  std::string kind = "both";            // weak | strong | both
  int rounds = 3;                       // runs of each point
  int steps = 200, warmup = 10;         // of a run: timed, and untimed before
  std::string mpirun = "mpirun";        // the launcher and its arguments
  std::vector<std::string> train_flags;
  std::string calibration_path;  // JSON of an earlier study that calibrates computing; empty: none
  // Steps between the log lines of a run. Timing begins and ends with a line.
  int window() const { return std::gcd(warmup, steps); }
};

// Weak scaling: each of the batches on every rank. Strong scaling: the first batch times the largest number
// of ranks, divided over the ranks.
struct Point {
  bool strong = false;
  int ranks = 1;
  int64_t global_batch = 1;
  int64_t share() const { return global_batch / ranks; }
  std::pair<int, int64_t> key() const { return {ranks, global_batch}; }
};

class ScalingStudy {
 public:
  explicit ScalingStudy(StudyOptions options);
  // Runs all jobs, with progress on standard error, and calibrates the model. If a job fails, the message has
  // its last lines, and the status has its exit code.
  absl::Status Run();

  const std::vector<Point>& points() const { return points_; }
  // [round] The mean over the steps of a run of a point. Figures: "images_per_second" and "step_ms", by the
  // clock over all steps and what is between them; "compute_ms", "comm_exposed_ms", "data_wait_ms" and
  // "peer_wait_ms", as in the metrics; "loop_ms", the rest of a step; "other_ms", the sum of the last two;
  // "jitter" and "spread", the metrics' compute_jitter and compute_spread.
  std::vector<double> Figures(const Point& point, const std::string& figure) const;
  double MedianOf(const Point& point, const std::string& figure) const;
  // Images per second and rank, divided by those of the fewest ranks of the same kind and, in weak scaling,
  // the same batch.
  double Efficiency(const Point& point) const;
  // Whether the model was calibrated without this point.
  bool HeldOut(const Point& point) const;

  // The calibrated model: the step of one rank with the first batch, the cluster, and the exchange.
  const RankStep& step() const { return step_; }
  const Cluster& cluster() const { return cluster_; }
  Exchange exchange() const;
  std::string collective() const;  // of bench comm, that measures links

  const nlohmann::ordered_json& network() const { return network_; }  // from the metrics of a run
  const std::string& device() const { return device_; }               // from the output of `train`

 private:
  int most_ranks() const { return static_cast<int>(options_.ranks.back()); }
  absl::Status ReadCalibration();
  absl::Status MeasurePoint(const Point& point, const std::string& metrics);
  absl::Status MeasureLink();
  std::vector<Point> CalibrationPoints() const;
  absl::Status SetStep(const ComputeLine& alone, double loop_ms);
  absl::Status Calibrate();
  ComputeSample SampleOf(const Point& point) const;

  const StudyOptions options_;
  std::vector<Point> points_;
  std::map<std::pair<int, int64_t>, std::vector<std::map<std::string, double>>> runs_;  // by Point::key
  std::vector<CommSample> link_samples_;
  int ranks_per_node_ = 1;                    // of the measurements: the most ranks on one machine
  nlohmann::ordered_json network_, earlier_;  // earlier_: the study of calibration_path; empty: none
  RankStep step_;
  Cluster cluster_;
  std::string device_, over_;  // over_: the communicator of gradients
  std::string gradient_sum_;   // of a run on the most ranks, from its metrics
};

}  // namespace deeper
