#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/bench/child_process.h"
#include "launch/cli/command.h"
#include "nlohmann/json.hpp"
#include "trainer/scaling/scaling_model.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

using nlohmann::ordered_json;

constexpr CommandText kText = {
    .name = "bench scaling",
    .summary = "measures how training scales over numbers of ranks, and predicts how it goes on",
    .operands = "[-- FLAGS OF train...]",
    .details =
        "Starts `mpirun -n RANKS deeper train` for each number of ranks, a few steps each, in rounds that "
        "take\n"
        "turns. Weak scaling: --batch images a rank. Strong scaling: the first --batch times the most "
        "ranks,\n"
        "divided over them. For each point the median over the rounds, an interval of 95 % confidence, the\n"
        "efficiency (images/s a rank over those of the fewest ranks), and where the time goes; other_ms is\n"
        "waiting for the slowest rank. Next to it what a model (docs/scaling.md) predicts: calibrated on\n"
        "`bench comm` and on the smallest and largest batch, on one rank and on the most; all other points\n"
        "are held out. Then what it predicts for --predict. Flags of train follow\n"
        "after --; without any it is GoogLeNet on made-up images. Run it as one process, without mpirun. "
        "Prints a\n"
        "table on standard error and JSON on standard output.",
    .examples =
        "deeper bench scaling --ranks=1,2 --batch=16\n"
        "deeper bench scaling --ranks=1,2,4,8 --mpirun='mpirun --hostfile hosts --bind-to core' -- "
        "--data=datasets/photos --threads=1\n"
        "deeper bench scaling --ranks=1,8 --batch=256,64 --predict=64,1024 --ranks_per_node=8 "
        "--node_latency_us=5 --node_gb_per_s=25 -- --synthetic --device=cuda --precision=bf16",
};

// One run of `train`: medians over its steps, which one disturbed step does not move.
struct Measured {
  double images_per_second = 0;
  double step_ms = 0, compute_ms = 0, comm_exposed_ms = 0, data_wait_ms = 0;
  double jitter = 0;  // standard deviation of the logarithm of a step's compute_ms, from its median deviation
  double other_ms() const { return step_ms - compute_ms - comm_exposed_ms - data_wait_ms; }
};

struct Point {
  bool strong;
  int ranks;
  int64_t global_batch;
  int64_t share() const { return global_batch / ranks; }
  std::pair<int, int64_t> key() const { return {ranks, global_batch}; }
};

double MedianOf(const std::vector<Measured>& runs, double Measured::*figure) {
  std::vector<double> values;
  for (const Measured& run : runs) values.push_back(run.*figure);
  return Median(values);
}

absl::StatusOr<std::vector<int64_t>> ParseList(const char* flag, const std::string& text) {
  std::vector<int64_t> values;
  for (const absl::string_view word : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    int64_t value = 0;
    if (!absl::SimpleAtoi(word, &value) || value < 1 || value > 1 << 20)
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag, "=", text, ": whole numbers from 1 on, with commas between them"));
    values.push_back(value);
  }
  return values;
}

// The last lines of what a program said.
std::string Tail(const std::string& text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  constexpr ptrdiff_t kLines = 12;
  if (std::ssize(lines) > kLines) lines.erase(lines.begin(), lines.end() - kLines);
  return absl::StrJoin(lines, "\n");
}

std::vector<ordered_json> ReadEvents(const std::string& path) {
  std::vector<ordered_json> events;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    events.push_back(ordered_json::parse(line, nullptr, /*allow_exceptions=*/false));
  return events;
}

// Steps after the first `warmup`.
Measured Summarize(const std::vector<ordered_json>& events, int64_t warmup, int64_t global_batch) {
  const auto over_steps = [&](const auto& figure) {
    std::vector<double> values;
    for (const ordered_json& event : events)
      if (event["event"] == "step" && event["step"].get<int64_t>() > warmup) values.push_back(figure(event));
    return Median(values);
  };
  const auto median_of = [&](const char* name) {
    return over_steps([name](const ordered_json& event) { return event[name].get<double>(); });
  };
  Measured run;
  run.images_per_second = median_of("images_per_second");
  run.step_ms = 1e3 * static_cast<double>(global_batch) / run.images_per_second;
  run.compute_ms = median_of("compute_ms");
  run.comm_exposed_ms = median_of("comm_exposed_ms");
  run.data_wait_ms = median_of("data_wait_ms");
  run.jitter = 1.4826 * over_steps([&](const ordered_json& event) {
                 return std::abs(std::log(event["compute_ms"].get<double>() / run.compute_ms));
               });
  return run;
}

// A directory that is gone with this object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() : path_((std::filesystem::temp_directory_path() / "deeper-XXXXXX").string()) {
    made_ = mkdtemp(path_.data()) != nullptr;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (made_) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  bool made() const { return made_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool made_ = false;
};

class BenchScalingCommand final : public Command {
 public:
  BenchScalingCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"What to measure",
             {{"ranks", &ranks_text_, "numbers of ranks, with commas"},
              {"kind", &kind_, "weak | strong | both"},
              {"batch", &batch_text_, "images a rank; several with commas: weak scaling with each"},
              {"rounds", &rounds_, "runs of each point, in turns"},
              {"steps", &steps_, "of a run that are timed"},
              {"warmup", &warmup_, "steps of a run before them"}}},
            {"How to start ranks",
             {{"mpirun", &mpirun_, "the launcher and its arguments, but for -n and the program"}}},
            {"Prediction",
             {{"calibration", &calibration_path_,
               "JSON of an earlier study of the same network, whose figures of computing count; empty: as "
               "measured now"},
              {"predict", &predict_text_, "numbers of ranks to predict, with commas"},
              {"ranks_per_node", &ranks_per_node_, "of what is predicted; 0: the most ranks measured"},
              {"node_latency_us", &node_link_.latency_us,
               "of a message between nodes; 0: as measured between ranks"},
              {"node_gb_per_s", &node_gb_per_s_,
               "bandwidth of a node's network, each way, in 1e9 bytes a second; 0: as measured between "
               "ranks"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.comm.name() != "single")
      return absl::InvalidArgumentError("it starts mpirun by itself: leave out mpirun, and see --mpirun");
    RETURN_IF_ERROR(Parse());
    RETURN_IF_ERROR(ReadCalibration());
    train_flags_ = call.operands;
    if (train_flags_.empty()) train_flags_ = {"--synthetic", "--num_classes=1000"};
    const TemporaryDirectory scratch;
    if (!scratch.made()) return absl::UnavailableError("cannot make a directory for temporary files");
    points_ = Points();
    for (int round = 0; round < rounds_; ++round) {
      for (const Point& point : points_) {
        if (std::ssize(runs_[point.key()]) > round) continue;  // of both kinds
        std::fprintf(stderr, "round %d of %d: %d ranks, %lld images a step\n", round + 1, rounds_,
                     point.ranks, static_cast<long long>(point.global_batch));
        RETURN_IF_ERROR(Measure(point, scratch.path() + "/metrics"));
      }
      RETURN_IF_ERROR(MeasureLink());
    }
    return Report();
  }

 private:
  absl::Status Parse() {
    for (const auto& [flag, words, list] :
         {std::tuple{"ranks", ranks_text_, &ranks_}, std::tuple{"batch", batch_text_, &batches_},
          std::tuple{"predict", predict_text_, &predict_}}) {
      ASSIGN_OR_RETURN(std::vector<int64_t> values, ParseList(flag, words));
      *list = std::move(values);
    }
    if (ranks_.empty() || batches_.empty())
      return absl::InvalidArgumentError("--ranks and --batch want a number at least");
    std::sort(ranks_.begin(), ranks_.end());
    if (kind_ != "weak" && kind_ != "strong" && kind_ != "both")
      return absl::InvalidArgumentError(absl::StrCat("--kind=", kind_, ": weak, strong or both"));
    if (rounds_ < 2 || steps_ < 2 || warmup_ < 1)
      return absl::InvalidArgumentError("--rounds and --steps must be at least 2, --warmup at least 1");
    if (node_gb_per_s_ < 0 || node_link_.latency_us < 0 || ranks_per_node_ < 0)
      return absl::InvalidArgumentError(
          "--node_gb_per_s, --node_latency_us and --ranks_per_node must not be negative");
    return absl::OkStatus();
  }

  absl::Status ReadCalibration() {
    if (calibration_path_.empty()) return absl::OkStatus();
    std::ifstream file(calibration_path_);
    earlier_ = ordered_json::parse(file, nullptr, /*allow_exceptions=*/false);
    bool whole = earlier_.is_object() && earlier_.contains("calibration") && earlier_.contains("settings");
    for (const char* figure : {"fixed_ms", "ms_per_image", "sharing", "sending_ms_per_byte", "jitter"})
      whole = whole && earlier_["calibration"].is_object() &&
              earlier_["calibration"].value(figure, ordered_json()).is_number();
    if (whole && earlier_["settings"].is_object()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("--calibration=", calibration_path_, ": not the JSON of `bench scaling`"));
  }

  int most_ranks() const { return static_cast<int>(ranks_.back()); }

  std::vector<Point> Points() const {
    std::vector<Point> points;
    if (kind_ != "strong") {
      for (const int64_t batch : batches_)
        for (const int64_t ranks : ranks_) points.push_back({false, static_cast<int>(ranks), batch * ranks});
    }
    if (kind_ != "weak") {
      for (const int64_t ranks : ranks_)
        points.push_back({true, static_cast<int>(ranks), batches_[0] * most_ranks()});
    }
    return points;
  }

  // `deeper ARGUMENTS` on so many ranks. A failure has the words and the exit code of what failed.
  absl::StatusOr<std::string> Launch(int ranks, const std::vector<std::string>& arguments) const {
    std::vector<std::string> line = absl::StrSplit(mpirun_, ' ', absl::SkipEmpty());
    if (line.empty()) return absl::InvalidArgumentError("--mpirun names no launcher");
    line.insert(line.end(),
                {"-n", absl::StrCat(ranks), std::filesystem::read_symlink("/proc/self/exe").string()});
    line.insert(line.end(), arguments.begin(), arguments.end());
    ASSIGN_OR_RETURN(ChildResult child, RunChild(line));
    if (child.exit_code == 0) return std::move(child.output);
    const absl::Status failed =
        absl::UnknownError(absl::StrCat("exit code ", child.exit_code, " from: ", absl::StrJoin(line, " "),
                                        "\n", Tail(child.output + child.errors)));
    const bool ours = child.exit_code >= static_cast<int>(ExitCode::kUsage) &&
                      child.exit_code <= static_cast<int>(ExitCode::kNotFinite);
    return WithExitCode(failed, ours ? static_cast<ExitCode>(child.exit_code) : ExitCode::kCommunication);
  }

  absl::Status Measure(const Point& point, const std::string& metrics) {
    // Of made-up data a few batches, since they are evaluated on at the end; of real data nothing is.
    std::vector<std::string> arguments = {"train",
                                          "--log_every=1",
                                          "--eval_every=1000000000",
                                          "--val_split=none",
                                          "--bucket_mib=8",  // not tuned: the model must know it
                                          absl::StrCat("--synthetic_samples=", 4 * point.global_batch)};
    arguments.insert(arguments.end(), train_flags_.begin(), train_flags_.end());
    arguments.insert(arguments.end(), {absl::StrCat("--global_batch=", point.global_batch),
                                       absl::StrCat("--max_steps=", warmup_ + steps_),
                                       absl::StrCat("--metrics_out=", metrics)});
    ASSIGN_OR_RETURN(const std::string output, Launch(point.ranks, arguments));
    const std::vector<ordered_json> events = ReadEvents(metrics);
    const auto steps = std::count_if(events.begin(), events.end(),
                                     [](const ordered_json& event) { return event["event"] == "step"; });
    if (steps != warmup_ + steps_)
      return absl::InternalError(absl::StrCat("train logged ", steps, " steps of ", warmup_ + steps_));
    runs_[point.key()].push_back(Summarize(events, warmup_, point.global_batch));
    network_ = events.front()["config"];
    if (!earlier_.empty() && earlier_["settings"]["network"] != network_)
      return absl::InvalidArgumentError(
          absl::StrCat("--calibration=", calibration_path_, " is of another network"));
    for (const absl::string_view line : absl::StrSplit(output, '\n'))
      if (absl::StartsWith(line, "device "))
        device_ = std::string(absl::StripAsciiWhitespace(line.substr(7)));
    return absl::OkStatus();
  }

  absl::Status MeasureLink() {
    if (most_ranks() == 1) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string output,
                     Launch(most_ranks(), {"bench", "comm", "--collective=all_reduce", "--min_bytes=65536",
                                           "--max_bytes=4194304", "--warmup=1", "--repeats=5"}));
    const ordered_json report = ordered_json::parse(output, nullptr, /*allow_exceptions=*/false);
    if (report.is_discarded()) return absl::InternalError(absl::StrCat("bench comm said:\n", Tail(output)));
    for (const ordered_json& result : report["results"])
      link_samples_.push_back({result["bytes"].get<double>(), result["ms"].get<double>()});
    return absl::OkStatus();
  }

  // The points that computing is calibrated on: of weak scaling, the smallest and the largest batch on the
  // fewest ranks, then on the most where the fewest are one, so that there is something to compare with. Of
  // strong scaling alone, the point with the fewest ranks, twice.
  std::vector<Point> CalibrationPoints() const {
    if (!earlier_.empty()) return {};
    if (points_.front().strong) return {points_.front(), points_.front()};
    const auto [small, large] = std::ranges::minmax(batches_);
    std::vector<Point> points;
    for (const int64_t ranks : {ranks_.front(), ranks_.back()}) {
      if (!points.empty() && (ranks_.front() > 1 || ranks == 1)) break;
      for (const int64_t batch : {small, large})
        points.push_back({false, static_cast<int>(ranks), batch * ranks});
    }
    return points;
  }

  ComputeSample SampleOf(const Point& point) const {
    return {point.share(), MedianOf(RunsOf(point), &Measured::compute_ms)};
  }

  // Sets step_ and cluster_.
  absl::Status Calibrate() {
    ASSIGN_OR_RETURN(const Model model, MakeModel(network_["model"].get<std::string>(),
                                                  {.num_classes = network_["num_classes"].get<int64_t>(),
                                                   .channels = network_["channels"].get<int64_t>(),
                                                   .image_size = network_["image_size"].get<int64_t>(),
                                                   .small_stem = network_["stem"] == "small",
                                                   .aux = network_["aux"].get<bool>()}));
    const std::vector<Point> points = CalibrationPoints();
    ComputeLine alone;
    if (points.empty()) {
      const ordered_json& earlier = earlier_["calibration"];
      alone = {earlier["fixed_ms"].get<double>(), earlier["ms_per_image"].get<double>()};
      cluster_.sharing = earlier["sharing"].get<double>();
      cluster_.sending_ms_per_byte = earlier["sending_ms_per_byte"].get<double>();
      cluster_.jitter = earlier["jitter"].get<double>();
    } else {
      alone = FitCompute(SampleOf(points[0]), SampleOf(points[1]));
      cluster_.jitter = MedianOf(RunsOf(points[0]), &Measured::jitter);
    }
    const int64_t batch = points_.front().share();
    ASSIGN_OR_RETURN(const RankStep step,
                     StepOf(model, batch, alone.ms_per_image * static_cast<double>(batch)));
    step_ = step;
    step_.update_ms = alone.fixed_ms;
    cluster_.ranks_per_node = most_ranks();
    if (points.size() == 4)
      FitInterference(SampleOf(points[2]), SampleOf(points[3]), alone, most_ranks(),
                      GradientBytes(step_) * Exchanged().wire, cluster_);
    if (most_ranks() > 1) cluster_.within = FitLink(link_samples_, most_ranks());
    cluster_.across = cluster_.within;
    return absl::OkStatus();
  }

  // As measured between ranks, wherever they are, but for what the flags state of nodes.
  Cluster Beyond() const {
    Cluster cluster = cluster_;
    if (ranks_per_node_ > 0) cluster.ranks_per_node = ranks_per_node_;
    if (node_link_.latency_us > 0) cluster.across.latency_us = node_link_.latency_us;
    if (node_gb_per_s_ > 0) cluster.across.bytes_per_second = 1e9 * node_gb_per_s_;
    return cluster;
  }

  absl::Status Report() {
    RETURN_IF_ERROR(Calibrate());
    ordered_json rows = ordered_json::array();
    std::fprintf(stderr, "\n%-7s %5s %7s %10s %21s %7s %9s %9s %9s %9s %10s %7s\n", "kind", "ranks", "batch",
                 "images/s", "95 % interval", "effic.", "compute", "exposed", "data", "other", "predicted",
                 "error");
    for (const Point& point : points_) {
      const double predicted =
          Predict(WithBatch(step_, point.share()), cluster_, Exchanged(), point.ranks).images_per_second;
      rows.push_back(RowOf(point, RateOf(point) / RateOf(BaseOf(point)), predicted));
      PrintRow(rows.back());
    }
    const ordered_json json = {{"benchmark", "scaling"},
                               {"points", rows},
                               {"predictions", Predictions()},
                               {"calibration", Calibration()},
                               {"settings", Settings()},
                               {"hardware", device_},
                               {"versions", {{"deeper", DEEPER_VERSION}, {"compiler", __VERSION__}}}};
    std::printf("%s\n", json.dump(2).c_str());
    return absl::OkStatus();
  }

  const std::vector<Measured>& RunsOf(const Point& point) const { return runs_.at(point.key()); }

  // Images per second and rank.
  double RateOf(const Point& point) const {
    return MedianOf(RunsOf(point), &Measured::images_per_second) / point.ranks;
  }

  // Efficiency is against this: the fewest ranks, of the same kind and, in weak scaling, the same batch.
  const Point& BaseOf(const Point& of) const {
    return *std::find_if(points_.begin(), points_.end(), [&](const Point& point) {
      return point.strong == of.strong && (of.strong || point.share() == of.share());
    });
  }

  // Over MPI all-reduces are rings; NCCL takes what is best.
  Exchange Exchanged() const {
    Exchange exchange = {.algorithm = AllReduceAlgorithm::kRing};
    for (absl::string_view flag : train_flags_) {
      double mib = 0;
      if (flag == "--device=cuda") exchange.algorithm = AllReduceAlgorithm::kBest;
      if (flag == "--wire=bf16") exchange.wire = 0.5;
      if (absl::ConsumePrefix(&flag, "--bucket_mib=") && absl::SimpleAtod(flag, &mib) && mib > 0)
        exchange.bucket_bytes = static_cast<size_t>(mib * (1 << 20));
    }
    return exchange;
  }

  ordered_json RowOf(const Point& point, double efficiency, double predicted) const {
    const std::vector<Measured>& runs = RunsOf(point);
    std::vector<double> rates, others;
    for (const Measured& run : runs) {
      rates.push_back(run.images_per_second);
      others.push_back(run.other_ms());
    }
    const Interval interval = MeanInterval(rates);
    const std::vector<Point> calibrating = CalibrationPoints();
    const bool held_out =
        std::ranges::none_of(calibrating, [&](const Point& other) { return other.key() == point.key(); });
    return {{"kind", point.strong ? "strong" : "weak"},
            {"ranks", point.ranks},
            {"global_batch", point.global_batch},
            {"images_per_second", {{"median", Median(rates)}, {"ci95", {interval.low, interval.high}}}},
            {"step_ms", MedianOf(runs, &Measured::step_ms)},
            {"compute_ms", MedianOf(runs, &Measured::compute_ms)},
            {"comm_exposed_ms", MedianOf(runs, &Measured::comm_exposed_ms)},
            {"data_wait_ms", MedianOf(runs, &Measured::data_wait_ms)},
            {"other_ms", Median(others)},
            {"efficiency", efficiency},
            {"predicted", predicted},
            {"error", predicted / Median(rates) - 1},
            {"held_out", held_out}};
  }

  static void PrintRow(const ordered_json& row) {
    const auto number = [&](const char* name) { return row[name].get<double>(); };
    const ordered_json& rate = row["images_per_second"];
    std::fprintf(
        stderr, "%-7s %5d %7lld %10.1f [%8.1f, %8.1f] %6.1f%% %9.1f %9.1f %9.1f %9.1f %10.1f %6.1f%% %s\n",
        row["kind"].get<std::string>().c_str(), row["ranks"].get<int>(), row["global_batch"].get<long long>(),
        rate["median"].get<double>(), rate["ci95"][0].get<double>(), rate["ci95"][1].get<double>(),
        100 * number("efficiency"), number("compute_ms"), number("comm_exposed_ms"), number("data_wait_ms"),
        number("other_ms"), number("predicted"), 100 * number("error"),
        row["held_out"].get<bool>() ? "held out" : "calibrates");
  }

  // With the first batch, weak scaling on.
  ordered_json Predictions() const {
    ordered_json predictions = ordered_json::array();
    const Cluster cluster = Beyond();
    for (const int64_t ranks : predict_) {
      Exchange exchange = BestBuckets(step_, cluster, Exchanged(), static_cast<int>(ranks));
      const Prediction p = Predict(step_, cluster, exchange, static_cast<int>(ranks));
      exchange.wire = 0.5;
      const Prediction halved = Predict(step_, cluster, exchange, static_cast<int>(ranks));
      const int64_t batch = SmallestBatch(step_, cluster, Exchanged(), static_cast<int>(ranks), 0.9);
      predictions.push_back({{"ranks", ranks},
                             {"global_batch", step_.batch * ranks},
                             {"images_per_second", p.images_per_second},
                             {"efficiency", p.efficiency},
                             {"compute_ms", p.compute_ms},
                             {"comm_exposed_ms", p.comm_exposed_ms},
                             {"data_wait_ms", p.data_wait_ms},
                             {"other_ms", p.peer_wait_ms},
                             {"bucket_mib", exchange.bucket_bytes >> 20},
                             {"bf16_wire_images_per_second", halved.images_per_second},
                             {"batch_for_90_percent", batch}});
      std::fprintf(stderr,
                   "predicted: %lld ranks: %.1f images/s, efficiency %.1f %%, buckets of %lld MiB; with "
                   "--wire=bf16 %.1f images/s; 90 %% efficient from %lld images a rank on (0: never)\n",
                   static_cast<long long>(ranks), p.images_per_second, 100 * p.efficiency,
                   static_cast<long long>(exchange.bucket_bytes >> 20), halved.images_per_second,
                   static_cast<long long>(batch));
    }
    return predictions;
  }

  ordered_json Calibration() const {
    return {{"fixed_ms", step_.update_ms},
            {"ms_per_image", (step_.forward_ms + step_.backward_ms) / static_cast<double>(step_.batch)},
            {"sharing", cluster_.sharing},
            {"sending_ms_per_byte", cluster_.sending_ms_per_byte},
            {"jitter", cluster_.jitter},
            {"latency_us", cluster_.within.latency_us},
            {"bytes_per_second", cluster_.within.bytes_per_second}};
  }

  ordered_json Settings() const {
    return {{"ranks", ranks_},     {"kind", kind_},
            {"batch", batches_},   {"rounds", rounds_},
            {"steps", steps_},     {"warmup", warmup_},
            {"mpirun", mpirun_},   {"train", train_flags_},
            {"network", network_}, {"calibration", calibration_path_}};
  }

  std::string ranks_text_ = "1,2", batch_text_ = "16", predict_text_ = "8,64,512,4096";
  std::string kind_ = "both", mpirun_ = "mpirun", calibration_path_;
  int rounds_ = 3, steps_ = 10, warmup_ = 2, ranks_per_node_ = 0;
  double node_gb_per_s_ = 0;
  Link node_link_;  // its latency, from the flag

  std::vector<int64_t> ranks_, batches_, predict_;
  std::vector<std::string> train_flags_;
  std::vector<Point> points_;
  std::map<std::pair<int, int64_t>, std::vector<Measured>> runs_;  // by Point::key
  std::vector<CommSample> link_samples_;
  ordered_json network_;  // as the metrics of a run describe it
  ordered_json earlier_;  // the study of --calibration; empty: none
  RankStep step_;         // of one rank, with the first batch
  Cluster cluster_;       // as measured
  std::string device_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchScaling() {
  return std::make_unique<BenchScalingCommand>();
}

}  // namespace deeper
