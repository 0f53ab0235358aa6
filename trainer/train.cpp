#include "trainer/train.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/device_communicator.h"
#include "comm/gradient_reducer.h"
#include "comm/phase.h"
#include "data/loader.h"
#include "kernels/flat.h"
#include "trainer/agree.h"
#include "trainer/checkpoint.h"
#include "trainer/evaluate.h"
#include "trainer/exit_code.h"
#include "trainer/metrics.h"
#include "trainer/network.h"
#include "trainer/optimizer.h"
#include "trainer/progress.h"
#include "trainer/schedule.h"
#include "trainer/step_meter.h"
#include "trainer/stragglers.h"
#include "trainer/stuck_head.h"
#include "trainer/trace_file.h"
#include "trainer/train_step.h"
#include "trainer/weights_file.h"

namespace deeper {
namespace {

constexpr int64_t kStuckWindow = 200;     // steps
constexpr int64_t kStragglerWindow = 50;  // steps
constexpr int kMostSkippedInARow = 100;   // steps; then skipping does not help
constexpr double kShareOfMemory = 0.8;    // of what is available to a rank, for an automatic micro-batch

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// This rank's mean loss of each head.
std::vector<double> MeanLosses(const StepReport& report) {
  std::vector<double> means;
  for (const HeadResult& head : report.heads)
    means.push_back(head.loss_sum / static_cast<double>(std::max<int64_t>(1, head.rows)));
  return means;
}

// Open MPI gives every rank a terminal of its own, wherever its output goes: so ranks draw a bar only when
// told to.
ProgressStyle StyleOf(const RunConfig& config, const Communicator& comm) {
  if (config.progress == "bar") return ProgressStyle::kBar;
  return config.progress == "lines" || comm.name() == "mpi" ? ProgressStyle::kLines : ProgressStyle::kAuto;
}

class Run {
 public:
  Run(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out)
      : config_(config),
        comm_(comm),
        device_(device),
        progress_(out, config.log_every, StyleOf(config, comm)) {}

  // In this order. Each works on this rank alone, unless it says collective; the ranks agree in between.
  absl::Status ConnectDevices();  // collective
  absl::Status OpenData();
  absl::Status BuildNetworks();
  absl::Status CheckSameModel();       // collective
  absl::Status RestoreOrInitialize();  // collective
  absl::Status OpenReports();
  absl::Status StartLoader();
  void Announce();
  absl::Status Steps();  // collective

 private:
  absl::Status PlanSteps();
  absl::Status BuildTrainingNetwork();
  absl::Status Resume();
  nlohmann::ordered_json RunJson() const;
  int64_t TrainedParameters() const;
  LoaderOptions Preset() const;
  void Advance(const StepReport& report);
  absl::Status SkipOrStop(const std::string& culprit);
  absl::Status EvaluateNow();
  absl::Status Save();
  void SynchronizeStatistics();
  bool Due(int64_t every) const { return every > 0 && step_ % every == 0; }
  void Warn(const absl::Status& status) {
    if (!status.ok()) progress_.Print(absl::StrCat("warning: ", status.message()));
  }
  // Over the device's memory, where comm_ is over the host's.
  Communicator& device_comm() const { return connection_.comm == nullptr ? comm_ : *connection_.comm; }
  int64_t ShareRows() const { return (config_.global_batch + comm_.size() - 1) / comm_.size(); }

  const RunConfig& config_;
  Communicator& comm_;
  Device& device_;
  Progress progress_;
  MetricsWriter metrics_;

  std::unique_ptr<Dataset> train_data_, val_data_;  // val_data_ may be null
  PixelStats stats_;
  std::unique_ptr<Network> net_, eval_net_;
  std::unique_ptr<ParamStore> params_;
  std::unique_ptr<Loader> loader_;
  DeviceCommunicator connection_;  // ends before the memory that it works on

  int64_t step_ = 0, total_steps_ = 0, epoch_steps_ = 0;
  int64_t skipped_ = 0, skipped_in_a_row_ = 0;  // steps that were not finite
  ScheduleOptions schedule_;
  DataState data_state_;
  nlohmann::json model_config_;
  File directory_lock_;
  std::vector<std::string> decisions_;  // about resuming, for the announcement
};

absl::Status Run::ConnectDevices() {
  absl::StatusOr<DeviceCommunicator> connection = MakeDeviceCommunicator(comm_, device_, config_.comm);
  if (!connection.ok()) return connection.status();
  connection_ = *std::move(connection);
  return absl::OkStatus();
}

absl::Status Run::OpenData() {
  absl::StatusOr<std::unique_ptr<Dataset>> train = OpenDataset(config_, config_.data, config_.train_split);
  if (!train.ok()) return train.status();
  train_data_ = *std::move(train);
  absl::StatusOr<PixelStats> stats = PixelStatsFor(config_, train_data_->info());
  if (!stats.ok()) return stats.status();
  stats_ = *std::move(stats);

  const bool val_given = !config_.val_data.empty();
  absl::StatusOr<std::unique_ptr<Dataset>> val =
      OpenDataset(config_, val_given ? config_.val_data : config_.data, config_.val_split);
  if (val.ok()) {
    val_data_ = *std::move(val);
    if (val_data_->info().classes != train_data_->info().classes) {
      return WithExitCode(absl::InvalidArgumentError(absl::StrCat(
                              "split ", config_.val_split, " has other classes than ", config_.train_split)),
                          ExitCode::kData);
    }
  } else if (val_given || !absl::IsNotFound(val.status())) {
    return val.status();
  }
  return PlanSteps();
}

absl::Status Run::PlanSteps() {
  epoch_steps_ = BatchesPerEpoch(train_data_->info().samples, config_.global_batch);
  const int64_t by_epochs = config_.epochs * epoch_steps_;
  if (by_epochs == 0 && config_.max_steps == 0)
    return absl::InvalidArgumentError("how long to train: give --epochs or --max_steps");
  total_steps_ = by_epochs == 0           ? config_.max_steps
                 : config_.max_steps == 0 ? by_epochs
                                          : std::min(by_epochs, config_.max_steps);
  const auto steps_of = [&](double epochs) {
    return static_cast<int64_t>(epochs * static_cast<double>(epoch_steps_));
  };
  absl::StatusOr<ScheduleKind> kind = ParseScheduleKind(config_.lr_schedule);
  if (!kind.ok()) return kind.status();
  schedule_ = {.kind = *kind,
               .base_lr = config_.lr,
               .warmup_steps = steps_of(config_.warmup_epochs),
               .total_steps = total_steps_,
               .gamma = config_.lr_gamma,
               .step_size = std::max<int64_t>(1, steps_of(config_.lr_step_epochs)),
               .power = config_.lr_power,
               .min_lr = config_.lr_min};
  return ValidateSchedule(schedule_);
}

// The whole share of the global batch in one forward pass if it fits in memory, else half of it, and so on.
absl::Status Run::BuildTrainingNetwork() {
  absl::StatusOr<Model> model = ModelFor(config_, train_data_->info(), /*training=*/true);
  if (!model.ok()) return model.status();
  const bool cuda = device_.type() == DeviceType::kCuda;
  const int sharing = cuda ? connection_.ranks_on_device : comm_.local_size();  // of the memory
  const double available = kShareOfMemory * static_cast<double>(device_.AvailableBytes()) / sharing;
  int64_t rows = config_.micro_batch > 0 ? std::min(config_.micro_batch, ShareRows()) : ShareRows();
  if (IsElastic(config_)) rows = (config_.global_batch + config_.elastic_slices - 1) / config_.elastic_slices;
  while (true) {
    absl::StatusOr<std::unique_ptr<Network>> net = Network::Prepare(
        *model,
        {.rows = rows, .precision = PrecisionOf(config_), .training = true, .fusion = FusionOf(config_)},
        device_);
    if (!net.ok()) return net.status();
    const bool fits = static_cast<double>((*net)->arena_bytes()) <= available;
    if (fits || rows == 1 || config_.micro_batch > 0 || IsElastic(config_)) {
      net_ = *std::move(net);
      return absl::OkStatus();
    }
    rows = (rows + 1) / 2;
  }
}

absl::Status Run::BuildNetworks() {
  if (config_.global_batch < comm_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--global_batch=", config_.global_batch,
                                                   " is smaller than the number of ranks, ", comm_.size(),
                                                   ": every rank needs at least one sample a step"));
  }
  if (absl::Status status = BuildTrainingNetwork(); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<ParamStore>> params =
      ParamStore::Create(net_->Params(), device_, /*training=*/true, net_->wants_narrow_params(),
                         config_.shard_optimizer ? ArenaSlice{comm_.rank(), comm_.size()} : ArenaSlice{});
  if (!params.ok()) return params.status();
  params_ = *std::move(params);
  device_comm().Register(params_->grads(), static_cast<size_t>(params_->trained_elements()) * sizeof(float));
  const bool has_statistics = params_->statistics_elements() > 0;
  if (absl::Status status = ValidateElastic(config_, comm_.size(), has_statistics); !status.ok())
    return status;
  if (absl::Status status = net_->Bind(*params_); !status.ok()) return status;
  if (val_data_ == nullptr) return absl::OkStatus();

  absl::StatusOr<Model> model = ModelFor(config_, train_data_->info(), /*training=*/false);
  if (!model.ok()) return model.status();
  absl::StatusOr<std::unique_ptr<Network>> net = Network::Prepare(*model,
                                                                  {.rows = net_->options().rows,
                                                                   .precision = PrecisionOf(config_),
                                                                   .training = false,
                                                                   .fusion = FusionOf(config_)},
                                                                  device_);
  if (!net.ok()) return net.status();
  eval_net_ = *std::move(net);
  return eval_net_->Bind(*params_);
}

// Gradients are summed arena against arena: all ranks must have laid them out alike.
absl::Status Run::CheckSameModel() {
  uint64_t hash =
      RandomStream(train_data_->info().uuid) + static_cast<uint64_t>(params_->momentum_elements());
  for (const Param& param : params_->trained()) {
    hash = hash * 1099511628211u +
           (RandomStream(param.name) ^ static_cast<uint64_t>(param.offset * 64 + param.layout.block));
  }
  int64_t low = static_cast<int64_t>(hash), high = low;
  comm_.AllReduce(&low, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  comm_.AllReduce(&high, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
  if (low == high) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "ranks disagree about the dataset or the parameters' layout: give all of them the same files, flags "
      "and build, on processors with the "
      "same vector instructions (or set ONEDNN_MAX_CPU_ISA to what the least of them has)");
}

absl::Status Run::RestoreOrInitialize() {
  data_state_ = {.dataset_uuid = train_data_->info().uuid,
                 .seed = config_.seed,
                 .global_batch = config_.global_batch,
                 .order = config_.order};
  model_config_ = ModelConfigJson(config_, net_->model(), train_data_->info(), stats_);
  params_->Initialize(config_.seed);
  if (!config_.checkpoint_dir.empty()) {
    if (absl::Status status = WithExitCode(Resume(), ExitCode::kCheckpoint); !status.ok()) return status;
  } else {
    decisions_.push_back("from scratch; no --checkpoint_dir, so nothing will be saved");
  }
  if (step_ > 0 || config_.init_from.empty()) return absl::OkStatus();
  absl::StatusOr<std::vector<std::string>> warnings = LoadWeights(config_.init_from, *params_, comm_);
  if (!warnings.ok()) return WithExitCode(warnings.status(), ExitCode::kCheckpoint);
  decisions_.insert(decisions_.end(), warnings->begin(), warnings->end());
  decisions_.push_back(absl::StrCat("weights taken from ", config_.init_from));
  return absl::OkStatus();
}

absl::Status Run::Resume() {
  absl::Status opened;
  if (comm_.rank() == 0) {
    absl::StatusOr<File> lock = OpenCheckpointDirectory(config_.checkpoint_dir);
    opened = lock.status();
    if (lock.ok()) directory_lock_ = *std::move(lock);
  }
  if (absl::Status status = Agree(comm_, opened); !status.ok()) return status;
  absl::StatusOr<CheckpointChoice> choice = ChooseCheckpoint(config_.checkpoint_dir, config_.resume, comm_);
  if (!choice.ok()) return choice.status();
  decisions_ = choice->warnings;
  if (choice->path.empty()) {
    decisions_.push_back(config_.resume == "never"
                             ? "from scratch, as --resume=never says"
                             : absl::StrCat("from scratch: no checkpoint in ", config_.checkpoint_dir));
    return absl::OkStatus();
  }
  absl::StatusOr<TrainState> state =
      LoadCheckpoint(choice->path, {0, data_state_, model_config_}, *params_, comm_);
  if (!state.ok()) return state.status();
  step_ = state->step;
  data_state_ = state->data;
  decisions_.push_back(absl::StrCat(choice->path, ": ", step_, " steps done, next is batch ",
                                    data_state_.batch, " of epoch ", data_state_.epoch));
  return absl::OkStatus();
}

absl::Status Run::OpenReports() {
  if (comm_.rank() != 0) return absl::OkStatus();
  if (!config_.metrics_out.empty()) {
    absl::StatusOr<MetricsWriter> metrics = MetricsWriter::Open(
        config_.metrics_out, step_ > 0 ? MetricsWriter::Mode::kAppend : MetricsWriter::Mode::kRestart);
    if (!metrics.ok()) return metrics.status();
    metrics_ = *std::move(metrics);
  }
  if (!config_.tensorboard.empty()) {
    if (absl::Status status = metrics_.AddTensorBoard(config_.tensorboard, step_ + 1); !status.ok())
      return status;
  }
  return step_ > 0 ? metrics_.Resume(step_, config_.checkpoint_dir, RunJson())
                   : metrics_.Start(model_config_, RunJson());
}

// For reports: on what, and how, this run trains.
nlohmann::ordered_json Run::RunJson() const {
  const DatasetInfo& data = train_data_->info();
  return {{"ranks", comm_.size()},
          {"device", device_.Describe()},
          {"precision", config_.precision},
          {"data", config_.synthetic ? "made up" : config_.data},
          {"samples", data.samples},
          {"eval_samples", val_data_ == nullptr ? 0 : val_data_->info().samples},
          {"global_batch", config_.global_batch},
          {"total_steps", total_steps_},
          {"epoch_steps", epoch_steps_},
          {"parameters", TrainedParameters()},
          {"optimizer", config_.optimizer},
          {"lr", config_.lr},
          {"lr_schedule", config_.lr_schedule},
          {"seed", config_.seed}};
}

int64_t Run::TrainedParameters() const {
  int64_t trained = 0;
  for (const Param& param : params_->trained()) trained += param.spec.elements();
  return trained;
}

absl::Status Run::StartLoader() {
  LoaderOptions options = Preset();
  options.augment = AugmentOf(config_);
  options.order = OrderOf(config_);
  options.seed = config_.seed;
  options.global_batch = config_.global_batch;
  options.rank = comm_.rank();
  options.world = comm_.size();
  options.slices = IsElastic(config_) ? config_.elastic_slices : 0;
  options.first_epoch = data_state_.epoch;
  options.first_batch = data_state_.batch;
  absl::StatusOr<std::unique_ptr<Loader>> loader = MakeLoader(*train_data_, options);
  if (!loader.ok()) return loader.status();
  loader_ = *std::move(loader);
  return absl::OkStatus();
}

// How images are prepared, for training and evaluation alike.
LoaderOptions Run::Preset() const {
  LoaderOptions options;
  net_->Configure(options);
  options.stats = stats_;
  options.workers = config_.workers;
  return options;
}

void Run::Announce() {
  const Model& model = net_->model();
  const DatasetInfo& data = train_data_->info();
  const auto line = [&](const char* what, const std::string& text) {
    progress_.Print(absl::StrFormat("%-13s %s", what, text));
  };
  line("model", absl::StrFormat("%s, %d parameters, %d heads, %d x %d x %d images, %d classes", model.name,
                                TrainedParameters(), model.heads.size(), model.channels, model.image_size,
                                model.image_size, model.num_classes));
  line("device", absl::StrFormat("%s, %s, %d MiB of activations a rank", device_.Describe(),
                                 config_.precision, net_->arena_bytes() >> 20));
  line("ranks", absl::StrFormat("%d over %s", comm_.size(), comm_.name()));
  if (connection_.comm != nullptr) line("gradients", absl::StrCat("over ", connection_.description));
  line("batch", absl::StrFormat("%d global, %d a rank in forward passes of %d", config_.global_batch,
                                ShareRows(), net_->options().rows));
  const auto mib = [](int64_t elements) { return static_cast<double>(elements) * sizeof(float) / (1 << 20); };
  line("optimizer",
       absl::StrFormat("%s, %.1f MiB of momentum a rank%s", config_.optimizer,
                       mib(params_->momentum_elements()),
                       params_->momentum_is_sharded()
                           ? absl::StrFormat(", its slice of %.1f MiB", mib(params_->trained_elements()))
                           : ""));
  line("learning rate",
       absl::StrFormat("%g for the global batch, whatever the number of ranks; %s, warm-up %d steps",
                       config_.lr, config_.lr_schedule, schedule_.warmup_steps));
  line("data",
       absl::StrFormat("%d samples of split %s, %s, order %s, augmentation %s", data.samples, data.split,
                       config_.synthetic ? "made up" : config_.data, config_.order, config_.augment));
  line("evaluation", val_data_ ? absl::StrFormat("%d samples of split %s", val_data_->info().samples,
                                                 val_data_->info().split)
                               : absl::StrFormat("none: there is no split %s", config_.val_split));
  line("length", absl::StrFormat("%d steps, %d an epoch", total_steps_, epoch_steps_));
  for (const std::string& decision : decisions_) line("resume", decision);
}

absl::Status Run::Steps() {
  const bool elastic = IsElastic(config_);
  const int micros = elastic
                         ? config_.elastic_slices / comm_.size()
                         : static_cast<int>((ShareRows() + net_->options().rows - 1) / net_->options().rows);
  GradientAccumulator accumulator(*params_, device_, elastic ? Accumulation::kTree : Accumulation::kRunning);
  if (absl::Status status = Agree(comm_, accumulator.Reserve(micros)); !status.ok()) return status;
  GradientReducer reducer(device_comm(), params_->grads(), net_->gradient_pieces(), BucketBytesOf(config_),
                          GradientSumOf(config_));
  FiniteGuard guard(*net_, *params_, comm_, device_);
  Optimizer optimizer({.momentum = static_cast<float>(config_.momentum),
                       .weight_decay = static_cast<float>(config_.weight_decay),
                       .nesterov = config_.optimizer == "nesterov"},
                      *params_, device_, &comm_);
  TrainStep train_step(*loader_, *net_, accumulator, reducer, guard, optimizer, device_, config_.seed);
  StepMeter meter(net_->model(), comm_);
  Stragglers stragglers(comm_, kStragglerWindow);
  StuckHeads stuck(net_->model(), kStuckWindow);
  ProgressState shown = {
      .total_steps = total_steps_, .epochs = config_.epochs, .global_batch = config_.global_batch};
  TraceLane("compute");
  StepTrace trace(config_.trace, config_.trace_first, config_.trace_steps, comm_);
  const double start = Seconds();
  while (step_ < total_steps_) {
    trace.BeginStep(step_ + 1);
    EnterStep(step_ + 1);
    const float lr = LearningRate(schedule_, step_);
    absl::StatusOr<StepReport> report = train_step.Run(lr);
    if (!report.ok())
      comm_.Abort(static_cast<int>(ExitCode::kData),
                  absl::StrCat("step ", step_, ": ", report.status().message()));
    ++step_;
    EnterPhase(Phase::kReport);
    Advance(*report);
    meter.Add(*report);
    for (const std::string& slow : stragglers.Observe(step_, {report->data_wait_ms, report->compute_ms})) {
      progress_.Print(absl::StrCat("warning: ", slow));
      Warn(metrics_.Straggler(step_, slow));
    }
    if (!report->finite) {
      if (absl::Status status = SkipOrStop(guard.Culprit(report->heads)); !status.ok()) return status;
    } else {
      skipped_in_a_row_ = 0;
      for (const std::string& warning : stuck.Observe(step_, MeanLosses(*report))) progress_.Print(warning);
    }
    const bool done = step_ == total_steps_;
    if (Due(config_.log_every) || done) {
      StepMetrics metrics = meter.Read(step_, lr);
      metrics.nonfinite_steps = skipped_;
      Warn(metrics_.Step(metrics));
      shown.loss = metrics.loss;
      shown.images_per_second = metrics.images_per_second;
    }
    shown.step = step_;
    shown.epoch = report->epoch;
    shown.lr = lr;
    progress_.Update(shown);
    if (done || (config_.eval_every > 0 ? Due(config_.eval_every) : report->last_in_epoch)) {
      if (absl::Status status = EvaluateNow(); !status.ok()) return status;
    }
    if (done || Due(config_.checkpoint_every)) {
      absl::Status saved = Save();
      if (!saved.ok() && done) return saved;
      Warn(saved);
    }
    const absl::StatusOr<bool> traced = trace.EndStep(step_, done);
    Warn(traced.status());
    if (traced.value_or(false)) progress_.Print(absl::StrCat("timeline written to ", config_.trace));
  }
  Warn(metrics_.Done(step_, Seconds() - start));
  return absl::OkStatus();
}

// The position in the data after a step: what was trained, not what was prefetched.
void Run::Advance(const StepReport& report) {
  data_state_.samples_trained += report.global_rows;
  data_state_.epoch = report.last_in_epoch ? report.epoch + 1 : report.epoch;
  data_state_.batch = report.last_in_epoch ? 0 : report.batch + 1;
}

// After a step that left the weights as they were.
absl::Status Run::SkipOrStop(const std::string& culprit) {
  Warn(metrics_.NonFinite(step_, culprit));
  ++skipped_;
  const std::string what = absl::StrCat("step ", step_, ": ", culprit);
  if (config_.on_nonfinite == "skip" && ++skipped_in_a_row_ < kMostSkippedInARow) {
    progress_.Print(absl::StrCat("warning: skipped ", what));
    return absl::OkStatus();
  }
  return WithExitCode(
      absl::OutOfRangeError(absl::StrCat(
          what,
          config_.on_nonfinite == "skip" ? absl::StrCat("; ", skipped_in_a_row_, " steps in a row") : "",
          ". The weights are those of the step before. Go on from the newest checkpoint with a lower --lr, a "
          "longer --warmup_epochs or --on_nonfinite=skip")),
      ExitCode::kNotFinite);
}

absl::Status Run::EvaluateNow() {
  if (eval_net_ == nullptr) return absl::OkStatus();
  SynchronizeStatistics();
  absl::StatusOr<EvalResult> result = Evaluate(*eval_net_, device_, *val_data_, Preset(), comm_);
  if (!result.ok()) return result.status();
  const double count = static_cast<double>(result->count);
  const EvalMetrics metrics = {.step = step_,
                               .top1 = static_cast<double>(result->top1) / count,
                               .top5 = static_cast<double>(result->top5) / count,
                               .loss = result->loss,
                               .count = result->count};
  progress_.Print(absl::StrFormat("evaluation at step %d: top-1 %.4f, top-5 %.4f, loss %.4f over %d samples",
                                  step_, metrics.top1, metrics.top5, result->loss, result->count));
  Warn(metrics_.Eval(metrics));
  return absl::OkStatus();
}

// Each rank's running statistics saw its own samples: everyone continues from their mean.
void Run::SynchronizeStatistics() {
  if (comm_.size() == 1 || params_->statistics_elements() == 0) return;
  const int64_t count = params_->statistics_elements();
  Scale(device_, 1.0f / static_cast<float>(comm_.size()), params_->statistic_values(), count);
  device_comm()
      .AllReduce(params_->statistic_values(), static_cast<size_t>(count), CommType::kF32, ReduceOp::kSum,
                 device_.stream())
      .Wait();
}

absl::Status Run::Save() {
  if (config_.checkpoint_dir.empty()) return absl::OkStatus();
  EnterPhase(Phase::kCheckpoint);
  SynchronizeStatistics();
  const double start = Seconds();
  const int64_t trace_start = TraceClock();
  absl::Status saved = SaveCheckpoint(config_.checkpoint_dir, {step_, data_state_, model_config_}, *params_,
                                      comm_, config_.keep);
  if (!saved.ok()) return WithExitCode(saved, ExitCode::kCheckpoint);
  TraceAsync("checkpoint", absl::StrCat("step ", step_), trace_start);
  const std::string path = StepDirectory(config_.checkpoint_dir, step_);
  const double seconds = Seconds() - start;
  progress_.Print(absl::StrFormat("checkpoint %s committed in %.2f s", path, seconds));
  Warn(metrics_.Checkpoint(step_, path, seconds));
  return absl::OkStatus();
}

}  // namespace

absl::Status Train(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out) {
  if (absl::Status status = Agree(comm, Validate(config)); !status.ok()) return status;
  const absl::StatusOr<std::unique_ptr<Watchdog>> watchdog = StartWatchdog(config, comm);
  if (!watchdog.ok()) return watchdog.status();
  Run run(config, comm, device, out);
  for (const auto prepare : {&Run::ConnectDevices, &Run::OpenData, &Run::BuildNetworks, &Run::CheckSameModel,
                             &Run::RestoreOrInitialize, &Run::OpenReports, &Run::StartLoader}) {
    if (absl::Status status = Agree(comm, (run.*prepare)()); !status.ok()) return status;
  }
  run.Announce();
  return run.Steps();
}

}  // namespace deeper
