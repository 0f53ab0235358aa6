#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/train_step.h"
#include "trainer/run/train_setup.h"
#include "trainer/scaling/health.h"
#include "trainer/scaling/probes.h"
#include "trainer/scaling/scaling_model.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

using nlohmann::ordered_json;

constexpr CommandText kText = {
    .name = "doctor",
    .summary = "under mpirun: is this cluster fit to train on, how fast would it be, what holds it back",
    .operands = "",
    .details =
        R"(Before an expensive job, in less than a minute, on the ranks that it will have: what each rank
runs on; latency and bandwidth of every link of the ring of ranks, one at a time, and of
all-reduces; how fast the loader delivers; whether the directory for checkpoints has room and
locks; how far clocks are apart; a few training steps. Names links that are far below what their
interface says, and links and ranks that are far slower than the others. Says how fast training
would be, what bounds it and what to change. Exit code 0: fit. 5: a link or a rank is slow.
3: data are not there, or slow on a rank. 4: the directory for checkpoints cannot be locked, or is
too full. Of several, the first of 5, 3, 4.)",
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
            {"What to do",
             {{"batch", &batch_, "images a rank, of the steps", Range(1, 1 << 16)},
              {"steps", &steps_, "that are timed, after one that is not", Range(2)},
              {"checkpoint_dir", &c.checkpoint_dir, "where checkpoints would go; empty: not looked at"},
              {"keep", &c.keep, "checkpoints that there must be room for", Range(1)},
              {"json", &json_, "file to write all of it to"}}}};
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
    if (!json_.empty()) verdict.Update(WriteFileAtomically(json_, Json(verdict.ok()).dump(2) + "\n"));
    return verdict;
  }

 private:
  absl::Status Measure(Communicator& comm, Device& device) {
    RankHealth mine;
    DescribeRank(device, mine);
    MeasureClockSkew(comm, mine);
    if (comm.size() > 1) MeasureLink(comm, mine);
    if (!config_.checkpoint_dir.empty()) {
      RETURN_IF_ERROR(ExamineDirectory(config_.checkpoint_dir, comm, mine));
    }
    RunConfig job = config_;  // that trains like this, but saves nothing and resumes nothing
    job.checkpoint_dir.clear();
    job.val_split = "none";
    job.micro_batch = batch_;
    job.max_steps = steps_;
    TrainSetup setup(job, comm, device, nullptr);
    RETURN_IF_ERROR(setup.Prepare());
    setup.loader.reset();  // it would read ahead meanwhile
    if (comm.size() > 1) {
      all_reduces_ = MeasureAllReduces(setup.device_comm(), device);
      for (CommSample& sample : all_reduces_)
        comm.AllReduce(&sample.ms, 1, CommType::kF64, ReduceOp::kMax, {}).Wait();
    }
    RETURN_IF_ERROR(Agree(comm, MeasureLoader(setup, mine)));
    RETURN_IF_ERROR(MeasureSteps(setup, mine));
    ranks_.resize(static_cast<size_t>(comm.size()));
    comm.AllGather(&mine, ranks_.data(), sizeof mine, {}).Wait();
    RETURN_IF_ERROR(PredictStep(setup.net->model()));
    JobWants wants;
    // Weights and momentum; one checkpoint more than are kept, while it is written.
    const double state = 2.0 * sizeof(float) * static_cast<double>(setup.params->trained_elements());
    if (!config_.checkpoint_dir.empty()) wants.checkpoint_bytes = state * (config_.keep + 1);
    wants.images_per_second = 1e3 * static_cast<double>(batch_) / step_.ms();
    findings_ = Examine(ranks_, wants);
    return absl::OkStatus();
  }

  // All ranks at once, as in training.
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

  // What the median rank's step, the all-reduces and the slowest loader would give together.
  absl::Status PredictStep(const Model& model) {
    const auto size = static_cast<int>(ranks_.size());
    std::vector<double> computes, loaders;
    for (const RankHealth& rank : ranks_) {
      computes.push_back(rank.compute_ms);
      loaders.push_back(rank.data_images_per_second);
    }
    cluster_.ranks_per_node = size;  // the link is the mean over all there are
    cluster_.jitter = jitter_;
    cluster_.loader_images_per_second = std::ranges::min(loaders);
    if (size > 1) cluster_.within = FitLink(all_reduces_, size);
    ASSIGN_OR_RETURN(step_, StepOf(model, batch_, Median(computes)));
    prediction_ = Predict(step_, cluster_, kRing, size);
    return absl::OkStatus();
  }

  void Print(bool fit) const {
    for (size_t i = 0; i < ranks_.size(); ++i) {
      const RankHealth& rank = ranks_[i];
      absl::PrintF(
          "rank %d on %s: %s; %d cores, %.0f MHz, %.1f GB free memory; %s %.0f MB/s nominal\n"
          "  from the rank before it %.1f us, %.1f MB/s; compute %.1f ms a step; data %.1f images/s; "
          "clock %+.3f s%s\n",
          i, rank.host, rank.device, rank.cores, rank.clock_mhz, rank.memory_bytes / 1e9,
          rank.network[0] == '\0' ? "no interface" : rank.network, rank.nominal_bytes_per_second / 1e6,
          rank.link_latency_us, rank.link_bytes_per_second / 1e6, rank.compute_ms,
          rank.data_images_per_second, rank.clock_skew_seconds,
          config_.checkpoint_dir.empty()
              ? ""
              : absl::StrFormat("; %.1f GB free for checkpoints", rank.free_bytes / 1e9));
    }
    for (const auto& [bytes, ms] : all_reduces_)
      absl::PrintF("all-reduce of %8.0f bytes: %9.3f ms\n", bytes, ms);
    absl::PrintF(
        "a step of %d images a rank: %.1f ms measured, %.1f predicted: %.1f computing, %.1f communication, "
        "%.1f data, %.1f slower ranks\n%.1f images/s predicted on %d ranks, efficiency %.1f %%\n"
        "bound by %s; to change: %s\n",
        batch_, measured_step_ms_, prediction_.step_ms, prediction_.compute_ms, prediction_.comm_exposed_ms,
        prediction_.data_wait_ms, prediction_.peer_wait_ms, prediction_.images_per_second, prediction_.ranks,
        100 * prediction_.efficiency, Bottleneck(prediction_), Advice(step_, cluster_, kRing, prediction_));
    for (const Finding& finding : findings_)
      absl::PrintF("%s: %s\n", finding.fit ? "note" : "UNFIT", finding.text);
    if (fit) absl::PrintF("fit\n");
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
                       {"compute_ms", rank.compute_ms},
                       {"data_images_per_second", rank.data_images_per_second},
                       {"clock_skew_seconds", rank.clock_skew_seconds},
                       {"sees_lock", rank.sees_lock},
                       {"free_bytes", rank.free_bytes}});
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
            {"versions", {{"deeper", DEEPER_VERSION}, {"compiler", __VERSION__}}}};
  }

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
