#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "launch/cli/version.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/train_step.h"
#include "trainer/monitor/text_layout.h"
#include "trainer/run/train_setup.h"
#include "trainer/scaling/health.h"
#include "trainer/scaling/probes.h"
#include "trainer/scaling/scaling_model.h"
#include "trainer/scaling/statistics.h"
#include "trainer/scaling/streams.h"

namespace deeper {
namespace {

using nlohmann::ordered_json;

constexpr CommandText kText = {
    .name = "doctor",
    .summary = "measures whether machines are fit to train on, and predicts the throughput",
    .operands = "",
    .details =
        R"(Run it under mpirun before an expensive job, on the ranks that the job will have. In less than a
minute it measures latency and bandwidth of each link of the ring of ranks, one at a time, of several TCP
connections at once between hosts, and of all-reduces;
the throughput of the loader; space and locks of the directory for checkpoints; the offset between clocks; and
a few training steps. It reports links far below the bandwidth of their interface, and links and ranks that
are much slower than the others. Then it predicts the throughput, and names what bounds it and what to change.
Exit codes: 0: fit. 5: a link or a rank is slow. 3: data are missing, or slow on a rank. 4: the directory for
checkpoints cannot be locked, or is too full. If several apply, the first of 5, 3, 4.)",
    .examples =
        "mpirun -n 8 --bind-to core deeper doctor --synthetic\n"
        "mpirun --hostfile hosts deeper doctor --data=datasets/photos --checkpoint_dir=runs/photos "
        "--json=doctor.json",
    .distributed = true,
};

constexpr double kLoaderSeconds = 2;
constexpr Exchange kRing = {.algorithm = AllReduceAlgorithm::kRing};

class DoctorCommand final : public Command {
 public:
  DoctorCommand() : Command(kText) {
    config_.watchdog_seconds = 60;
    config_.keep = 3;
  }

  std::vector<FlagGroup> Flags() override {
    RunConfig& c = config_;
    return {ModelFlags(c),
            With(Pick(c, "Data", {"data", "train_split", "synthetic", "augment"}), InputFlags(c).flags),
            With(MachineFlags(c), Pick(c, "", {"watchdog_seconds", "comm"}).flags),
            {"Measurements",
             {{"batch", &batch_, "images per rank and step", Range(1, 1 << 16)},
              {"steps", &steps_, "timed steps, after an untimed one", Range(2)},
              {"checkpoint_dir", &c.checkpoint_dir, "directory for checkpoints to check; empty: none"},
              {"keep", &c.keep, "checkpoints that the directory must have room for", Range(1)},
              {"json", &json_, "file for the results as JSON"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    Communicator& comm = call.comm;
    config_.global_batch = batch_ * comm.size();
    config_.num_classes = config_.synthetic && config_.num_classes == 0 ? 1000 : config_.num_classes;
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(const std::unique_ptr<Watchdog> watchdog, StartWatchdog(config_, comm));
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeDeviceFor(config_, comm));
    RETURN_IF_ERROR(Measure(comm, *device));
    absl::Status verdict = VerdictOf(findings_);
    if (!call.is_root()) return verdict;
    Print(verdict.ok());
    const bool fit = verdict.ok();
    if (!fit) {  // Print has listed the reasons
      verdict =
          WithExitCode(FailedPrecondition("not fit to train on, for the reasons above"), ExitCodeOf(verdict));
    }
    if (!json_.empty()) verdict.Update(WriteFileAtomically(json_, Json(fit).dump(2) + "\n"));
    return verdict;
  }

 private:
  absl::Status Measure(Communicator& comm, Device& device) {
    RankHealth mine;
    DescribeRank(device, mine);
    MeasureClockSkew(comm, mine);
    if (comm.size() > 1) {
      MeasureLink(comm, mine);
      MeasureStreams(comm, mine);
    }
    if (!config_.checkpoint_dir.empty()) {
      RETURN_IF_ERROR(ExamineDirectory(config_.checkpoint_dir, comm, mine));
    }
    RunConfig job = config_;  // without saving and resuming
    job.checkpoint_dir.clear();
    job.val_split = "none";
    job.micro_batch = batch_;
    job.max_steps = steps_;
    TrainSetup setup(job, comm, device, nullptr);
    RETURN_IF_ERROR(setup.Prepare());
    setup.loader.reset();  // its reading ahead would disturb the measurements
    if (comm.size() > 1) {
      const ReduceOp sum = setup.gradient_sum == GradientSum::kTree ? ReduceOp::kTreeSum : ReduceOp::kSum;
      all_reduces_ = MeasureAllReduces(setup.device_comm(), device, sum);
      for (CommSample& sample : all_reduces_)
        comm.AllReduce(&sample.ms, 1, CommType::kF64, ReduceOp::kMax, {}).Wait();
    }
    RETURN_IF_ERROR(Agree(comm, MeasureLoader(setup, mine)));
    RETURN_IF_ERROR(MeasureSteps(setup, mine));
    ranks_.resize(static_cast<size_t>(comm.size()));
    comm.AllGather(&mine, ranks_.data(), sizeof mine, {}).Wait();
    RETURN_IF_ERROR(PredictStep(setup.net->model()));
    JobWants wants;
    // Weights and momentum. While a checkpoint is written, there is one more than --keep.
    const double state = 2.0 * sizeof(float) * static_cast<double>(setup.params->trained_elements());
    if (!config_.checkpoint_dir.empty()) wants.checkpoint_bytes = state * (config_.keep + 1);
    wants.images_per_second = 1e3 * static_cast<double>(batch_) / step_.ms();
    findings_ = Examine(ranks_, wants);
    return absl::OkStatus();
  }

  // On all ranks at the same time, as in training.
  absl::Status MeasureLoader(const TrainSetup& setup, RankHealth& mine) const {
    ASSIGN_OR_RETURN(const std::unique_ptr<Loader> loader,
                     WithExitCode(MakeLoader(*setup.train_data, setup.TrainingInput()), ExitCode::kData));
    const double start = Seconds();
    double images = 0;
    while (Seconds() - start < kLoaderSeconds) {
      ASSIGN_OR_RETURN(const Batch batch, WithExitCode(loader->Next(), ExitCode::kData));
      images += static_cast<double>(batch.rows);
    }
    mine.data_images_per_second = images / (Seconds() - start);
    return absl::OkStatus();
  }

  absl::Status MeasureSteps(TrainSetup& setup, RankHealth& mine) {
    ASSIGN_OR_RETURN(const std::unique_ptr<Loader> loader,
                     Agree(setup.comm, MakeLoader(*setup.train_data, setup.TrainingInput())));
    GradientAccumulator accumulator(*setup.params, setup.device);
    GradientReducer reducer(setup.device_comm(), setup.params->grads(), setup.net->gradient_pieces(),
                            Exchange().bucket_bytes);
    FiniteGuard guard(*setup.net, *setup.params, setup.comm, setup.device);
    Optimizer optimizer({}, *setup.params, setup.device);
    TrainStep train_step(*loader, *setup.net, accumulator, reducer, guard, optimizer, setup.device,
                         config_.seed);
    std::vector<double> computes, steps;  // ms
    for (int step = 0; step <= steps_; ++step) {
      EnterStep(step + 1);
      const double start = Seconds();
      const absl::StatusOr<StepReport> report = train_step.Run(/*lr=*/0);
      if (!report.ok())
        setup.comm.Abort(static_cast<int>(ExitCode::kData), std::string(report.status().message()));
      if (step == 0) continue;
      computes.push_back(report->compute_ms);
      steps.push_back(1e3 * (Seconds() - start));
    }
    mine.compute_ms = Median(computes);
    measured_step_ms_ = Median(steps);
    for (const double compute : computes) jitter_ += std::pow(std::log(compute / mine.compute_ms), 2);
    jitter_ = std::sqrt(jitter_ / static_cast<double>(computes.size() - 1));
    return absl::OkStatus();
  }

  // Predicts from the median rank's step, the all-reduces and the slowest loader.
  absl::Status PredictStep(const Model& model) {
    const auto size = static_cast<int>(ranks_.size());
    std::vector<double> computes, loaders;
    for (const RankHealth& rank : ranks_) {
      computes.push_back(rank.compute_ms);
      loaders.push_back(rank.data_images_per_second);
    }
    cluster_.ranks_per_node = size;  // as if on one host: FitLink describes all links by one
    cluster_.jitter = jitter_;
    cluster_.loader_images_per_second = std::ranges::min(loaders);
    if (size > 1) cluster_.within = FitLink(all_reduces_, size);
    ASSIGN_OR_RETURN(step_, StepOf(model, batch_, Median(computes)));
    prediction_ = Predict(step_, cluster_, kRing, size);
    return absl::OkStatus();
  }

  void Print(bool fit) const {
    std::string out = absl::StrCat(RankTable(), "\n");
    if (!all_reduces_.empty()) {
      std::vector<std::vector<std::string>> rows = {{"all-reduce bytes", "ms", "MB/s"}};
      for (const auto& [bytes, ms] : all_reduces_)
        rows.push_back({absl::StrFormat("%.0f", bytes), absl::StrFormat("%.3f", ms),
                        absl::StrFormat("%.1f", bytes / ms / 1e3)});
      absl::StrAppend(&out, FormatTable("rrr", rows), "\n");
    }
    absl::StrAppend(
        &out, Row("hosts", HostsText()), StreamsRow(),
        Row("step", absl::StrFormat("%d images per rank: %.1f ms measured, %.1f ms predicted", batch_,
                                    measured_step_ms_, prediction_.step_ms)),
        Row("", absl::StrFormat("%.1f ms computing + %.1f communication + %.1f data + %.1f slower ranks",
                                prediction_.compute_ms, prediction_.comm_exposed_ms, prediction_.data_wait_ms,
                                prediction_.peer_wait_ms)),
        Row("throughput",
            absl::StrFormat("%.1f images/s predicted on %d ranks, efficiency %.1f %%",
                            prediction_.images_per_second, prediction_.ranks, 100 * prediction_.efficiency)),
        Row("bound by", Bottleneck(prediction_)), Row("advice", Advice(step_, cluster_, kRing, prediction_)));
    int reasons = 0;
    std::string list;
    for (const Finding& finding : findings_) {
      if (finding.fit)
        out += Row("note", finding.text);
      else
        list += Wrapped(absl::StrCat(++reasons, "."), finding.text, 2, 5, columns_);
    }
    absl::StrAppend(&out, "\n", fit ? "FIT\n" : "NOT FIT\n", list);
    std::fputs(out.c_str(), stdout);
  }

  std::string Row(const std::string& label, const std::string& value) const {
    return Wrapped(label, value, 0, 12, columns_);
  }

  // One row per rank. A table that would be wider than the terminal has its last columns below it.
  std::string RankTable() const {
    const bool checkpoints = !config_.checkpoint_dir.empty();
    std::vector<std::vector<std::string>> rows = {
        {"rank", "host", "cores", "memory", "link", "link", "compute", "data", "clock"},
        {"", "", "", "GB free", "us", "MB/s", "ms/step", "images/s", "s"}};
    std::vector<std::string> details = {"device", ""};
    std::map<std::string, std::vector<size_t>> ranks_with;
    if (checkpoints) {
      rows[0].push_back("disk");
      rows[1].push_back("GB free");
    }
    for (size_t i = 0; i < ranks_.size(); ++i) {
      const RankHealth& rank = ranks_[i];
      const bool linked = rank.link_bytes_per_second > 0;
      rows.push_back({absl::StrCat(i), rank.host, absl::StrCat(rank.cores),
                      absl::StrFormat("%.1f", rank.memory_bytes / 1e9),
                      linked ? absl::StrFormat("%.1f", rank.link_latency_us) : "-",
                      linked ? absl::StrFormat("%.1f", rank.link_bytes_per_second / 1e6) : "-",
                      absl::StrFormat("%.1f", rank.compute_ms),
                      absl::StrFormat("%.0f", rank.data_images_per_second),
                      absl::StrFormat("%+.3f", rank.clock_skew_seconds)});
      if (checkpoints) rows.back().push_back(absl::StrFormat("%.1f", rank.free_bytes / 1e9));
      std::string detail = absl::StrFormat("%s, %.0f MHz", rank.device, rank.clock_mhz);
      if (rank.network[0] != '\0')
        absl::StrAppendFormat(&detail, ", %s %.0f MB/s", rank.network, rank.nominal_bytes_per_second / 1e6);
      ranks_with[detail].push_back(i);
      details.push_back(std::move(detail));
    }
    const std::string align = absl::StrCat("rl", std::string(rows[0].size() - 2, 'r'));
    std::vector<std::vector<std::string>> wide = rows;
    for (size_t i = 0; i < wide.size(); ++i) wide[i].push_back(details[i]);
    std::string table = FormatTable(align + "l", wide);
    const std::vector<std::string> lines = absl::StrSplit(table, '\n');
    const auto longest = std::ranges::max_element(lines, {}, &std::string::size);
    if (static_cast<int>(longest->size()) > columns_) {
      table = absl::StrCat(FormatTable(align, rows), "\n");
      for (const auto& [detail, ranks] : ranks_with)
        table += Wrapped(absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ",")),
                         detail, 0, 12, columns_);
    }
    return absl::StrCat(
        table, ranks_.size() > 1 ? Row("link", "from the previous rank in the ring, one at a time") : "");
  }

  // "2, of 1 to 3 ranks each; /dev/shm of 8.1 GB"
  std::string HostsText() const {
    std::map<std::string, size_t> hosts;
    std::vector<double> shared;
    for (const RankHealth& rank : ranks_) {
      ++hosts[rank.host];
      shared.push_back(rank.shared_memory_bytes);
    }
    size_t least = ranks_.size(), most = 0;
    for (const auto& [host, ranks] : hosts) {
      least = std::min(least, ranks);
      most = std::max(most, ranks);
    }
    return absl::StrFormat("%d, with %s rank%s each; at least %.1f GB of /dev/shm", hosts.size(),
                           least == most ? absl::StrCat(most) : absl::StrCat(least, " to ", most),
                           most == 1 ? "" : "s", std::ranges::min(shared) / 1e9);
  }

  // Empty with one host, and where no connection was possible.
  std::string StreamsRow() const {
    double least = 0;  // bytes/s
    for (const RankHealth& rank : ranks_) {
      const double streams = rank.streams_bytes_per_second;
      if (streams > 0) least = least == 0 ? streams : std::min(least, streams);
    }
    if (least == 0) return "";
    return Row("network", absl::StrFormat("%d TCP connections at once give at least %.1f MB/s between hosts",
                                          kStreams, least / 1e6));
  }

  ordered_json Json(bool fit) const {
    ordered_json ranks = ordered_json::array(), findings = ordered_json::array(),
                 all_reduces = ordered_json::array();
    for (const RankHealth& rank : ranks_) {
      ranks.push_back({{"host", rank.host},
                       {"device", rank.device},
                       {"cores", rank.cores},
                       {"clock_mhz", rank.clock_mhz},
                       {"memory_bytes", rank.memory_bytes},
                       {"interface", rank.network},
                       {"nominal_bytes_per_second", rank.nominal_bytes_per_second},
                       {"link_latency_us", rank.link_latency_us},
                       {"link_bytes_per_second", rank.link_bytes_per_second},
                       {"streams_bytes_per_second", rank.streams_bytes_per_second},
                       {"compute_ms", rank.compute_ms},
                       {"data_images_per_second", rank.data_images_per_second},
                       {"clock_skew_seconds", rank.clock_skew_seconds},
                       {"sees_lock", rank.sees_lock},
                       {"free_bytes", rank.free_bytes},
                       {"shared_memory_bytes", rank.shared_memory_bytes}});
    }
    for (const Finding& finding : findings_)
      findings.push_back(
          {{"fit", finding.fit}, {"exit_code", static_cast<int>(finding.code)}, {"text", finding.text}});
    for (const auto& [bytes, ms] : all_reduces_) all_reduces.push_back({{"bytes", bytes}, {"ms", ms}});
    return {{"doctor", 1},
            {"fit", fit},
            {"findings", findings},
            {"ranks", ranks},
            {"all_reduce", all_reduces},
            {"link",
             {{"latency_us", cluster_.within.latency_us},
              {"bytes_per_second", cluster_.within.bytes_per_second}}},
            {"batch", batch_},
            {"measured_step_ms", measured_step_ms_},
            {"predicted",
             {{"step_ms", prediction_.step_ms},
              {"compute_ms", prediction_.compute_ms},
              {"comm_exposed_ms", prediction_.comm_exposed_ms},
              {"data_wait_ms", prediction_.data_wait_ms},
              {"peer_wait_ms", prediction_.peer_wait_ms},
              {"images_per_second", prediction_.images_per_second},
              {"efficiency", prediction_.efficiency}}},
            {"bottleneck", Bottleneck(prediction_)},
            {"advice", Advice(step_, cluster_, kRing, prediction_)},
            {"versions", Versions()}};
  }

  const int columns_ = TextColumns(stdout, 160);
  RunConfig config_;
  int64_t batch_ = 8;
  int steps_ = 5;
  std::string json_;

  std::vector<RankHealth> ranks_;
  std::vector<CommSample> all_reduces_;
  std::vector<Finding> findings_;
  double measured_step_ms_ = 0, jitter_ = 0;  // of this rank
  RankStep step_;
  Cluster cluster_;
  Prediction prediction_;
};

}  // namespace

std::unique_ptr<Command> MakeDoctor() {
  return std::make_unique<DoctorCommand>();
}

}  // namespace deeper
