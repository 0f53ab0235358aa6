#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "kernels/base/status.h"
#include "launch/bench/harness.h"
#include "launch/bench/scaling_study.h"
#include "launch/cli/command.h"
#include "nlohmann/json.hpp"
#include "trainer/scaling/scaling_model.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

using nlohmann::ordered_json;

constexpr CommandText kText = {
    .name = "bench scaling",
    .summary = "measures the scaling of training over ranks, and predicts it for more ranks",
    .operands = "[-- FLAGS OF train...]",
    .details =
        R"(Runs `mpirun -n RANKS deeper train` for each number of ranks, in rounds over all points.
Weak scaling: --batch images per rank. Strong scaling: the first --batch times the largest number of ranks,
divided over the ranks. For each point it reports the median over the rounds, the 95 % confidence interval, the
efficiency (images/s per rank, divided by that of the fewest ranks), and the parts of the time. images/s are
by the clock over all timed steps and what is between them. other_ms is the wait for the slowest rank and the
time between steps. It compares with a model (docs/design/scaling-model.md), which is calibrated on
`bench comm` and on the smallest and largest batch, on one rank and on the most ranks. All other points are held
out. The model also predicts the numbers of ranks of --predict. Flags of train follow after --; the default is
GoogLeNet on synthetic images. Run this command as one process, without mpirun. It prints a table on standard
error and JSON on standard output.)",
    .examples =
        "deeper bench scaling --ranks=1,2 --batch=16\n"
        "deeper bench scaling --ranks=1,2,4,8 --mpirun='mpirun --hostfile hosts --bind-to core' -- "
        "--data=datasets/photos --threads=1\n"
        "deeper bench scaling --ranks=1,8 --batch=256,64 --predict=64,1024 --ranks_per_node=8 "
        "--node_latency_us=5 --node_gb_per_s=25 -- --synthetic --device=cuda --precision=bf16",
};

absl::StatusOr<std::vector<int64_t>> ParseList(const char* flag, const std::string& text) {
  std::vector<int64_t> values;
  for (const absl::string_view word : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(word, &value) || value < 1 || value > 1 << 20)
      return InvalidArgument("--", flag, "=", text,
                             ": must be whole numbers of at least 1, separated by commas");
    values.push_back(value);
  }
  return values;
}

class BenchScalingCommand final : public Command {
 public:
  BenchScalingCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    constexpr double kAny = Range::kAny;
    return {
        {"Measurements",
         {{"ranks", &ranks_text_, "numbers of ranks, separated by commas"},
          {"kind", OneOf(&study_.kind, {"weak", "strong", "both"}), "kind of scaling"},
          {"batch", &batch_text_, "images per rank; several, separated by commas: weak scaling with each"},
          {"rounds", &study_.rounds, "runs of each point", Range(2)},
          {"steps", &study_.steps, "timed steps per run", Range(2)},
          {"warmup", &study_.warmup, "untimed steps at the start of a run", Range(1)}}},
        {"Launcher", {{"mpirun", &study_.mpirun, "launcher and its arguments, without -n and the program"}}},
        {"Prediction",
         {{"calibration", &study_.calibration_path,
           "JSON of an earlier study of the same network, for the calibration of computing; empty: calibrate "
           "on this study"},
          {"predict", &predict_text_, "numbers of ranks to predict, separated by commas"},
          {"ranks_per_node", &ranks_per_node_, "ranks per node of the predictions",
           Range(0, kAny, "the most ranks measured")},
          {"node_latency_us", &node_latency_us_, "latency of a message between nodes, in microseconds",
           Range(0, kAny, "as measured between ranks")},
          {"node_gb_per_s", &node_gb_per_s_,
           "bandwidth of a node's network per direction, in 1e9 bytes per second",
           Range(0, kAny, "as measured between ranks")}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.comm.name() != "single")
      return InvalidArgument("starts mpirun on its own; leave out mpirun, or see --mpirun");
    ASSIGN_OR_RETURN(study_.ranks, ParseList("ranks", ranks_text_));
    ASSIGN_OR_RETURN(study_.batches, ParseList("batch", batch_text_));
    ASSIGN_OR_RETURN(predict_, ParseList("predict", predict_text_));
    if (study_.ranks.empty() || study_.batches.empty())
      return InvalidArgument("--ranks and --batch need at least one number");
    std::sort(study_.ranks.begin(), study_.ranks.end());
    study_.train_flags = call.operands;
    if (call.operands.empty()) study_.train_flags = {"--synthetic", "--num_classes=1000"};
    ScalingStudy study(study_);
    RETURN_IF_ERROR(study.Run());
    Report(study);
    return absl::OkStatus();
  }

 private:
  void Report(const ScalingStudy& study) const {
    absl::FPrintF(stderr, "\n%-7s %5s %7s %10s %21s %7s %9s %9s %9s %9s %10s %7s\n", "kind", "ranks", "batch",
                  "images/s", "95 % interval", "effic.", "compute", "exposed", "data", "other", "predicted",
                  "error");
    ordered_json rows = ordered_json::array();
    for (const Point& point : study.points()) {
      rows.push_back(RowOf(study, point));
      PrintRow(rows.back());
    }
    const RankStep& step = study.step();
    const Cluster& cluster = study.cluster();
    PrintBenchmark(
        {{"benchmark", "scaling"},
         {"points", rows},
         {"predictions", Predictions(study)},
         {"calibration",
          {{"fixed_ms", step.update_ms},
           {"ms_per_image", (step.forward_ms + step.backward_ms) / static_cast<double>(step.batch)},
           {"sharing", cluster.sharing},
           {"sending_ms_per_byte", cluster.sending_ms_per_byte},
           {"jitter", cluster.jitter},
           {"spread", cluster.spread},
           {"concurrent_ranks", cluster.concurrent_ranks},
           {"loader_images_per_second", cluster.loader_images_per_second},
           {"loop_ms", step.loop_ms},
           {"control_ms_per_level", cluster.control_ms_per_level},
           {"latency_us", cluster.within.latency_us},
           {"bytes_per_second", cluster.within.bytes_per_second}}}},
        {{"ranks", study_.ranks},
         {"kind", study_.kind},
         {"batch", study_.batches},
         {"rounds", study_.rounds},
         {"steps", study_.steps},
         {"warmup", study_.warmup},
         {"mpirun", study_.mpirun},
         {"train", study_.train_flags},
         {"network", study.network()},
         {"collective", study.collective()},
         {"calibration", study_.calibration_path}},
        study.device());
  }

  static ordered_json RowOf(const ScalingStudy& study, const Point& point) {
    const std::vector<double> rates = study.Figures(point, "images_per_second");
    const Interval interval = MeanInterval(rates);
    const double predicted =
        Predict(WithBatch(study.step(), point.share()), study.cluster(), study.exchange(), point.ranks)
            .images_per_second;
    ordered_json row = {
        {"kind", point.strong ? "strong" : "weak"},
        {"ranks", point.ranks},
        {"global_batch", point.global_batch},
        {"images_per_second", {{"median", Median(rates)}, {"ci95", {interval.low, interval.high}}}}};
    for (const char* figure : {"step_ms", "compute_ms", "comm_exposed_ms", "data_wait_ms", "other_ms",
                               "peer_wait_ms", "loop_ms", "jitter", "spread"})
      row[figure] = study.MedianOf(point, figure);
    row["efficiency"] = study.Efficiency(point);
    row["predicted"] = predicted;
    row["error"] = predicted / Median(rates) - 1;
    row["held_out"] = study.HeldOut(point);
    return row;
  }

  static void PrintRow(const ordered_json& row) {
    const auto number = [&](const char* name) { return row[name].get<double>(); };
    const ordered_json& rate = row["images_per_second"];
    absl::FPrintF(stderr,
                  "%-7s %5d %7d %10.1f [%8.1f, %8.1f] %6.1f%% %9.1f %9.1f %9.1f %9.1f %10.1f %6.1f%% %s\n",
                  row["kind"].get<std::string>(), row["ranks"].get<int>(), row["global_batch"].get<int64_t>(),
                  rate["median"].get<double>(), rate["ci95"][0].get<double>(), rate["ci95"][1].get<double>(),
                  100 * number("efficiency"), number("compute_ms"), number("comm_exposed_ms"),
                  number("data_wait_ms"), number("other_ms"), number("predicted"), 100 * number("error"),
                  row["held_out"].get<bool>() ? "held out" : "calibrates");
  }

  // Predicts weak scaling with the first batch. Links are those measured between the ranks, unless flags
  // describe the nodes.
  ordered_json Predictions(const ScalingStudy& study) const {
    Cluster cluster = study.cluster();
    if (ranks_per_node_ > 0) cluster.ranks_per_node = ranks_per_node_;
    if (node_latency_us_ > 0) cluster.across.latency_us = node_latency_us_;
    if (node_gb_per_s_ > 0) cluster.across.bytes_per_second = 1e9 * node_gb_per_s_;
    ordered_json predictions = ordered_json::array();
    for (const int64_t number : predict_) {
      const auto ranks = static_cast<int>(number);
      Exchange exchange = BestBuckets(study.step(), cluster, study.exchange(), ranks);
      const Prediction p = Predict(study.step(), cluster, exchange, ranks);
      exchange.wire = 0.5;
      const Prediction halved = Predict(study.step(), cluster, exchange, ranks);
      const int64_t batch = SmallestBatch(study.step(), cluster, study.exchange(), ranks, 0.9);
      predictions.push_back({{"ranks", ranks},
                             {"global_batch", study.step().batch * ranks},
                             {"images_per_second", p.images_per_second},
                             {"efficiency", p.efficiency},
                             {"compute_ms", p.compute_ms},
                             {"comm_exposed_ms", p.comm_exposed_ms},
                             {"data_wait_ms", p.data_wait_ms},
                             {"other_ms", p.peer_wait_ms + p.loop_ms},
                             {"peer_wait_ms", p.peer_wait_ms},
                             {"loop_ms", p.loop_ms},
                             {"bucket_mib", exchange.bucket_bytes >> 20},
                             {"bf16_wire_images_per_second", halved.images_per_second},
                             {"batch_for_90_percent", batch}});
      absl::FPrintF(stderr,
                    "predicted: %d ranks: %.1f images/s, efficiency %.1f %%, buckets of %d MiB; with "
                    "--wire=bf16 %.1f images/s; 90 %% efficient from %d images per rank (0: never)\n",
                    ranks, p.images_per_second, 100 * p.efficiency, exchange.bucket_bytes >> 20,
                    halved.images_per_second, batch);
    }
    return predictions;
  }

  StudyOptions study_;
  std::string ranks_text_ = "1,2", batch_text_ = "16", predict_text_ = "8,64,512,4096";
  std::vector<int64_t> predict_;
  int ranks_per_node_ = 0;
  double node_latency_us_ = 0, node_gb_per_s_ = 0;
};

}  // namespace

std::unique_ptr<Command> MakeBenchScaling() {
  return std::make_unique<BenchScalingCommand>();
}

}  // namespace deeper
