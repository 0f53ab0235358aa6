#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/placement.h"
#include "launch/cli/run_flags.h"
#include "launch/commands/network_interface.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/train_step.h"
#include "trainer/run/train_setup.h"
#include "trainer/scaling/health.h"
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
        "Before an expensive job, in less than a minute, on the ranks that it will have: what each rank runs "
        "on;\n"
        "latency and bandwidth of every link of the ring of ranks, one at a time, and of all-reduces; how "
        "fast\n"
        "the loader delivers; whether the directory for checkpoints has room and locks; how far clocks are "
        "apart;\n"
        "a few training steps. Names links that are far below what their interface says, links and ranks "
        "that\n"
        "are far slower than the others, says how fast training would be, what bounds it and what to "
        "change.\n"
        "Exit code 0: fit. 5: a link or a rank is slow. 3: data are not there, or slow on a rank. 4: the\n"
        "directory for checkpoints cannot be locked, or is too full. Of several, the first of 5, 3, 4.",
    .examples =
        "mpirun -n 8 --bind-to core deeper doctor --synthetic\n"
        "mpirun --hostfile hosts deeper doctor --data=datasets/photos --checkpoint_dir=runs/photos "
        "--json=doctor.json",
    .distributed = true,
};

constexpr size_t kLinkBytes = size_t{4} << 20;
constexpr int kLinkRounds = 3, kPings = 50, kClockRounds = 9;
constexpr double kLoaderSeconds = 2;
constexpr size_t kAllReduceBytes[] = {4 << 10, 64 << 10, 1 << 20, 4 << 20};

void CopyText(const std::string& text, char* to, size_t size) {
  std::snprintf(to, size, "%s", text.c_str());
}

// Of the first processor; 0 where the system does not say.
double ClockMhz() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    double mhz = 0;
    if (line.starts_with("cpu MHz") && absl::SimpleAtod(line.substr(line.find(':') + 1), &mhz)) return mhz;
  }
  return 0;
}

// One message over each link, those that leave even ranks first, so that no rank sends and receives at once.
// Returns the seconds that this rank's took to arrive.
double TimeLink(Communicator& comm, std::byte* to_next, std::byte* from_previous, size_t bytes, int count) {
  const int previous = (comm.rank() + comm.size() - 1) % comm.size();
  double seconds = 0;
  // Of an odd number of ranks the last one is even, and its next one too.
  for (int turn = 0; turn < 3; ++turn) {
    const auto turn_of = [&](int rank) { return rank % 2 == 1 ? 1 : rank + 1 == comm.size() ? 2 : 0; };
    comm.Barrier();
    const double start = Seconds();
    for (int i = 0; i < count; ++i)
      comm.Shift(turn_of(comm.rank()) == turn ? to_next : nullptr,
                 turn_of(previous) == turn ? from_previous : nullptr, bytes)
          .Wait();
    if (turn_of(previous) == turn) seconds = (Seconds() - start) / count;
  }
  return seconds;
}

void MeasureLink(Communicator& comm, RankHealth& mine) {
  std::vector<std::byte> sent(kLinkBytes), received(kLinkBytes);
  TimeLink(comm, sent.data(), received.data(), 64 << 10, 1);  // opens connections
  mine.link_latency_us = 1e6 * TimeLink(comm, sent.data(), received.data(), 1, kPings);
  double fastest = 1e30;
  for (int round = 0; round < kLinkRounds; ++round)
    fastest = std::min(fastest, TimeLink(comm, sent.data(), received.data(), kLinkBytes, 1));
  mine.link_bytes_per_second = kLinkBytes / fastest;
}

// Of this rank, the least of the rounds. Collective.
std::vector<CommSample> MeasureAllReduces(Communicator& comm, Device& device) {
  std::vector<CommSample> samples;
  const Buffer memory = device.Allocate(std::ranges::max(kAllReduceBytes));
  for (const size_t bytes : kAllReduceBytes) {
    double fastest = 1e30;
    for (int round = 0; round < kLinkRounds; ++round) {
      comm.Barrier();
      const double start = Seconds();
      comm.AllReduce(memory.data(), bytes / sizeof(float), CommType::kF32, ReduceOp::kSum, device.stream())
          .Wait();
      device.Synchronize();
      fastest = std::min(fastest, 1e3 * (Seconds() - start));
    }
    samples.push_back({static_cast<double>(bytes), fastest});
  }
  return samples;
}

double MeasureSkew(Communicator& comm) {
  std::vector<double> skews;
  for (int round = 0; round < kClockRounds; ++round) {
    comm.Barrier();
    double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
    const double mine = now;
    comm.Broadcast(&now, sizeof now, 0, {}).Wait();
    skews.push_back(mine - now);
  }
  return Median(skews);
}

// Rank 0 takes the lock that a training job would; nobody else may get it meanwhile.
absl::Status ExamineDirectory(const std::string& directory, Communicator& comm, RankHealth& mine) {
  File lock;
  absl::Status taken;
  if (comm.rank() == 0) {
    taken = CreateDirectories(directory);
    if (taken.ok()) {
      absl::StatusOr<File> locked = LockDirectory(directory);
      taken = locked.status();
      if (locked.ok()) lock = *std::move(locked);
    }
  }
  taken = Agree(comm, WithExitCode(taken, ExitCode::kCheckpoint));
  if (!taken.ok()) return taken;
  if (comm.rank() != 0) mine.sees_lock = absl::IsFailedPrecondition(LockDirectory(directory).status());
  struct statvfs space = {};
  const absl::Status there =
      statvfs(directory.c_str(), &space) == 0 ? absl::OkStatus() : IoError("look at", directory, errno);
  mine.free_bytes = static_cast<double>(space.f_bavail) * static_cast<double>(space.f_frsize);
  return Agree(comm, WithExitCode(there, ExitCode::kCheckpoint));  // before rank 0 lets go
}

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
             {{"batch", &batch_, "images a rank, of the steps"},
              {"steps", &steps_, "that are timed, after one that is not"},
              {"checkpoint_dir", &c.checkpoint_dir, "where checkpoints would go; empty: not looked at"},
              {"keep", &c.keep, "checkpoints that there must be room for"},
              {"json", &json_, "file to write all of it to"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    Communicator& comm = call.comm;
    if (batch_ < 1 || batch_ > 1 << 16 || steps_ < 2 || config_.keep < 1)
      return absl::InvalidArgumentError("--batch and --keep must be at least 1, --steps at least 2");
    config_.global_batch = batch_ * comm.size();
    config_.num_classes = config_.synthetic && config_.num_classes == 0 ? 1000 : config_.num_classes;
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(const std::unique_ptr<Watchdog> watchdog, StartWatchdog(config_, comm));
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeDeviceFor(config_, comm));
    RETURN_IF_ERROR(Measure(comm, *device));
    return call.is_root() ? Report(comm) : Verdict();
  }

 private:
  // Of a job that trains like this, but saves nothing and resumes nothing.
  RunConfig JobConfig() const {
    RunConfig config = config_;
    config.checkpoint_dir.clear();
    config.val_split = "none";
    config.micro_batch = batch_;
    config.max_steps = steps_;
    return config;
  }

  absl::Status Measure(Communicator& comm, Device& device) {
    RankHealth mine;
    Describe(device, mine);
    mine.clock_skew_seconds = MeasureSkew(comm);
    if (comm.size() > 1) MeasureLink(comm, mine);
    if (!config_.checkpoint_dir.empty()) {
      RETURN_IF_ERROR(ExamineDirectory(config_.checkpoint_dir, comm, mine));
    }
    const RunConfig config = JobConfig();
    TrainSetup setup(config, comm, device, nullptr);
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
    Predict(setup.net->model(), comm);
    JobWants wants;
    // Weights and momentum; one checkpoint more than are kept, while it is written.
    const double state = 2.0 * sizeof(float) * static_cast<double>(setup.params->trained_elements());
    if (!config_.checkpoint_dir.empty()) wants.checkpoint_bytes = state * (config_.keep + 1);
    wants.images_per_second = 1e3 * static_cast<double>(batch_) / step_.ms();
    findings_ = Examine(ranks_, wants);
    return absl::OkStatus();
  }

  void Describe(Device& device, RankHealth& mine) const {
    gethostname(mine.host, sizeof mine.host - 1);
    CopyText(device.Describe(), mine.device, sizeof mine.device);
    const NetworkInterface fastest = FastestInterface();
    CopyText(fastest.name, mine.network, sizeof mine.network);
    mine.nominal_bytes_per_second = fastest.bytes_per_second;
    mine.memory_bytes = static_cast<double>(device.AvailableBytes());
    mine.clock_mhz = ClockMhz();
    mine.cores = AvailableCores();
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
    absl::StatusOr<std::unique_ptr<Loader>> loader = MakeLoader(*setup.train_data, setup.TrainingInput());
    RETURN_IF_ERROR(Agree(setup.comm, loader.status()));
    GradientAccumulator accumulator(*setup.params, setup.device);
    GradientReducer reducer(setup.device_comm(), setup.params->grads(), setup.net->gradient_pieces(),
                            Exchange().bucket_bytes);
    FiniteGuard guard(*setup.net, *setup.params, setup.comm, setup.device);
    Optimizer optimizer({}, *setup.params, setup.device);
    TrainStep train_step(**loader, *setup.net, accumulator, reducer, guard, optimizer, setup.device,
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
  void Predict(const Model& model, const Communicator& comm) {
    std::vector<double> computes;
    cluster_.ranks_per_node = comm.size();  // the link is the mean over all there are
    cluster_.jitter = jitter_;
    cluster_.loader_images_per_second = ranks_[0].data_images_per_second;
    for (const RankHealth& rank : ranks_) {
      computes.push_back(rank.compute_ms);
      cluster_.loader_images_per_second =
          std::min(cluster_.loader_images_per_second, rank.data_images_per_second);
    }
    if (comm.size() > 1) cluster_.within = FitLink(all_reduces_, comm.size());
    const absl::StatusOr<RankStep> step = StepOf(model, batch_, Median(computes));
    DEEPER_CHECK(step.ok(), "the network was prepared for this batch");
    step_ = *step;
    prediction_ = deeper::Predict(step_, cluster_, kRing, comm.size());
  }

  std::string Bottleneck() const {
    const std::pair<double, const char*> waits[] = {{prediction_.comm_exposed_ms, "communication"},
                                                    {prediction_.data_wait_ms, "data"},
                                                    {prediction_.peer_wait_ms, "slower ranks"}};
    const auto worst = *std::ranges::max_element(waits);
    return worst.first > 0.05 * prediction_.step_ms ? worst.second : "computing";
  }

  std::string Advice() const {
    const std::string bottleneck = Bottleneck();
    const int ranks = prediction_.ranks;
    if (bottleneck == "data") return "more --workers, smaller images (`pack --resize`), or a faster disk";
    if (bottleneck == "slower ranks")
      return "bind ranks to cores of their own (mpirun --bind-to core), and keep other programs off them";
    if (bottleneck == "computing") return "more ranks, or a faster device: the rest is hidden behind it";
    Exchange halved = kRing;
    halved.wire = 0.5;
    const int64_t batch = SmallestBatch(step_, cluster_, kRing, ranks, 0.9);
    return absl::StrFormat(
        "--wire=bf16 (%.1f images/s at most), --bucket_mib=%d, %s, or a faster network",
        deeper::Predict(step_, cluster_, halved, ranks).images_per_second,
        BestBuckets(step_, cluster_, kRing, ranks).bucket_bytes >> 20,
        batch > 0 ? absl::StrFormat("a --global_batch of %d for an efficiency of 90 %%", batch * ranks)
                  : "which no --global_batch makes up for");
  }

  absl::Status Report(const Communicator& comm) const {
    for (size_t i = 0; i < ranks_.size(); ++i) PrintRank(i);
    for (const auto& [bytes, ms] : all_reduces_)
      std::printf("all-reduce of %8.0f bytes: %9.3f ms\n", bytes, ms);
    std::printf(
        "a step of %lld images a rank: %.1f ms measured, %.1f predicted: %.1f computing, %.1f communication, "
        "%.1f data, %.1f slower ranks\n%.1f images/s predicted on %d ranks, efficiency %.1f %%\n"
        "bound by %s; to change: %s\n",
        static_cast<long long>(batch_), measured_step_ms_, prediction_.step_ms, prediction_.compute_ms,
        prediction_.comm_exposed_ms, prediction_.data_wait_ms, prediction_.peer_wait_ms,
        prediction_.images_per_second, comm.size(), 100 * prediction_.efficiency, Bottleneck().c_str(),
        Advice().c_str());
    for (const Finding& finding : findings_)
      std::printf("%s: %s\n", finding.fit ? "note" : "UNFIT", finding.text.c_str());
    const absl::Status verdict = Verdict();
    if (verdict.ok()) std::printf("fit\n");
    if (json_.empty()) return verdict;
    const absl::Status written = WriteFileAtomically(json_, Json().dump(2) + "\n");
    return verdict.ok() ? written : verdict;
  }

  void PrintRank(size_t i) const {
    const RankHealth& rank = ranks_[i];
    std::printf(
        "rank %zu on %s: %s; %d cores, %.0f MHz, %.1f GB free memory; %s %.0f MB/s nominal\n"
        "  from the rank before it %.1f us, %.1f MB/s; compute %.1f ms a step; data %.1f images/s; clock "
        "%+.3f "
        "s%s\n",
        i, rank.host, rank.device, rank.cores, rank.clock_mhz, rank.memory_bytes / 1e9,
        rank.network[0] == '\0' ? "no interface" : rank.network, rank.nominal_bytes_per_second / 1e6,
        rank.link_latency_us, rank.link_bytes_per_second / 1e6, rank.compute_ms, rank.data_images_per_second,
        rank.clock_skew_seconds,
        config_.checkpoint_dir.empty()
            ? ""
            : absl::StrFormat("; %.1f GB free for checkpoints", rank.free_bytes / 1e9).c_str());
  }

  // OK, or what is unfit, with its exit code.
  absl::Status Verdict() const {
    std::vector<std::string> texts;
    ExitCode code = ExitCode::kDone;
    for (const Finding& finding : findings_) {
      if (finding.fit) continue;
      if (texts.empty()) code = finding.code;
      texts.push_back(finding.text);
    }
    if (texts.empty()) return absl::OkStatus();
    return WithExitCode(
        absl::FailedPreconditionError(absl::StrCat("not fit to train on: ", absl::StrJoin(texts, "; "))),
        code);
  }

  ordered_json Json() const {
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
            {"fit", Verdict().ok()},
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
            {"bottleneck", Bottleneck()},
            {"advice", Advice()},
            {"versions", {{"deeper", DEEPER_VERSION}, {"compiler", __VERSION__}}}};
  }

  static constexpr Exchange kRing = {.algorithm = AllReduceAlgorithm::kRing};

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
