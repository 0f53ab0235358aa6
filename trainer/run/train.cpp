#include "trainer/run/train.h"

#include <chrono>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/agree.h"
#include "comm/gradient_reducer.h"
#include "comm/phase.h"
#include "kernels/base/clock.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "kernels/base/trace.h"
#include "kernels/ops/arrays/arrays.h"
#include "trainer/engine/evaluate.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/train_step.h"
#include "trainer/monitor/diagnosis.h"
#include "trainer/monitor/monitor.h"
#include "trainer/monitor/step_meter.h"
#include "trainer/monitor/trace_file.h"
#include "trainer/run/stop.h"
#include "trainer/run/train_setup.h"

namespace deeper {
namespace {

// Forward passes of a step on this rank.
int MicroBatches(const TrainSetup& run) {
  if (IsElastic(run.config)) return run.config.elastic_slices / run.comm.size();
  return static_cast<int>((run.ShareRows() + run.net->options().rows - 1) / run.net->options().rows);
}

// The steps of a run, and what happens between them: reports, evaluations, checkpoints, and the end.
class TrainLoop {
 public:
  explicit TrainLoop(TrainSetup& run);
  // Collective. Trains from the current step to the last one, or until a signal asks to stop.
  absl::Status Run();

 private:
  absl::Status Step();
  Wish MyWish() const;
  void Advance(const StepReport& report);
  absl::Status Watch(const StepReport& report);
  void Log(const StepReport& report, float lr);
  void Diagnose(const StepReport& report);
  absl::Status EvaluateNow();
  void SynchronizeStatistics();
  void Save();
  absl::Status FinishSaving();
  absl::Status ReportSaves(const std::vector<SaveReport>& reports);
  bool Due(int64_t every) const { return every > 0 && run_.step % every == 0; }
  bool log_is_due() const { return Due(run_.config.log_every) || done(); }
  bool done() const { return run_.step >= run_.last_step; }

  TrainSetup& run_;
  GradientAccumulator accumulator_;
  GradientReducer reducer_;
  FiniteGuard guard_;
  Optimizer optimizer_;
  TrainStep train_step_;
  StepMeter meter_;
  std::vector<std::unique_ptr<Monitor>> monitors_;
  DeadClasses dead_classes_;
  StepTrace trace_;
  ProgressState shown_;

  std::optional<double> top1_;    // evaluated after this step
  double last_save_ = Seconds();  // start of the last save, or of the loop
  bool stopped_ = false;
  bool statistics_agree_ = false;  // since the last step
};

TrainLoop::TrainLoop(TrainSetup& run)
    : run_(run),
      accumulator_(*run.params, run.device,
                   IsElastic(run.config) ? Accumulation::kTree : Accumulation::kRunning),
      reducer_(run.device_comm(), run.params->grads(), run.net->gradient_pieces(), BucketBytesOf(run.config),
               run.gradient_sum),
      guard_(*run.net, *run.params, run.comm, run.device),
      optimizer_({.name = run.config.optimizer,
                  .momentum = static_cast<float>(run.config.momentum),
                  .weight_decay = static_cast<float>(run.config.weight_decay),
                  .first_step = run.step,
                  .lr_scales = run.lr_scales,
                  .lars_trust = static_cast<float>(run.config.lars_trust),
                  .ema_decay = static_cast<float>(run.config.ema_decay)},
                 *run.params, run.device, &run.device_comm()),
      train_step_(*run.loader, *run.net, accumulator_, reducer_, guard_, optimizer_, run.device,
                  run.config.seed, run.statistics_sum.has_value() ? &*run.statistics_sum : nullptr),
      meter_(run.net->model(), run.comm),
      trace_(run.config.trace, run.config.trace_first, run.config.trace_steps, run.comm),
      shown_{.total_steps = run.total_steps,
             .last_step = run.last_step,
             .epochs = run.config.epochs,
             .global_batch = run.BatchRows()} {
  const MonitorContext context = {
      .model = run.net->model(),
      .comm = run.comm,
      .loader = *run.loader,
      .cores = run.cores,
      .allow_bad = run.config.allow_bad,
      .skip_nonfinite = run.config.on_nonfinite == OnNonfinite::kSkip,
      .culprit = [this](const StepReport& report) { return guard_.Culprit(report.heads); }};
  for (MonitorFactory* make : kMonitors) monitors_.push_back(make(context));
}

absl::Status TrainLoop::Run() {
  absl::Status status = Agree(run_.comm, accumulator_.Reserve(MicroBatches(run_)));
  TraceLane("compute");
  const double start = Seconds();
  if (done()) {
    run_.Tell({.text = absl::StrFormat(
                   "already done: step %d of %d; to train further, raise %s", run_.step, run_.last_step,
                   run_.last_step < run_.total_steps ? "--stop_at" : "--epochs or --max_steps")});
  }
  while (status.ok() && !done() && !stopped_) {
    trace_.BeginStep(run_.step + 1);
    status = Step();
    if (!status.ok()) break;
    const absl::StatusOr<bool> traced = trace_.EndStep(run_.step, done() || stopped_);
    run_.Warn(traced.status());
    if (traced.value_or(false)) run_.progress.Print(absl::StrCat("timeline written to ", run_.config.trace));
  }
  if (run_.saver != nullptr) {
    EnterPhase(Phase::kCheckpoint);
    if (status.ok()) {
      status = FinishSaving();
    } else {
      ReportSaves(run_.saver->Finish()).IgnoreError();
    }
  }
  if (!status.ok()) return status;
  if (stopped_) {
    return WithExitCode(absl::CancelledError(absl::StrCat(
                            "stopped by a signal after step ", run_.step,
                            ". The checkpoint is saved; run the same command again",
                            run_.config.resume == "latest" ? "" : " with --resume=latest", " to resume")),
                        ExitCode::kPreempted);
  }
  for (const auto& monitor : monitors_) run_.Tell({.text = monitor->Summary()});
  if (run_.last_step < run_.total_steps) {
    run_.Tell(
        {.text = absl::StrFormat("stopped after step %d of %d, as --stop_at=%g asks; to continue, run the "
                                 "command with a larger --stop_at, or without one",
                                 run_.step, run_.total_steps, run_.config.stop_at)});
  }
  run_.Tell({"done", {{"step", run_.step}, {"seconds", Seconds() - start}}});
  return absl::OkStatus();
}

absl::Status TrainLoop::Step() {
  EnterStep(run_.step + 1);
  const float lr = LearningRate(run_.schedule, run_.step);
  const absl::StatusOr<StepReport> report = train_step_.Run(lr);
  if (!report.ok()) {
    EnterPhase(Phase::kCheckpoint);
    if (run_.saver != nullptr) ReportSaves(run_.saver->Finish()).IgnoreError();  // of an earlier step
    run_.comm.Abort(static_cast<int>(ExitCode::kData),
                    absl::StrCat("step ", run_.step + 1, ": ", report.status().message()));
  }
  ++run_.step;
  statistics_agree_ = false;
  // A save by the clock or by a signal must not change what follows.
  if (run_.config.deterministic != Determinism::kFalse) SynchronizeStatistics();
  EnterPhase(Phase::kReport);
  // A save ends at a slightly different time on each rank. So the ranks agree before one of them leaves.
  const absl::Status saved =
      run_.saver == nullptr ? absl::OkStatus() : ReportSaves(run_.saver->TakeReports());
  const Wish wish = StrongestWish(absl::IsAborted(saved) ? Wish::kLeave : MyWish(), run_.comm);
  stopped_ = wish == Wish::kStop && !done();
  Advance(*report);
  RETURN_IF_ERROR(Watch(*report));
  Log(*report, lr);
  if (wish == Wish::kLeave) return absl::IsAborted(saved) ? saved : ReportSaves(run_.saver->Finish());
  top1_.reset();
  // Skip the evaluation when stopping: the grace period may be short.
  absl::Status evaluated;
  if (!stopped_ &&
      (done() || (run_.config.eval_every > 0 ? Due(run_.config.eval_every) : report->last_in_epoch))) {
    if (report->finite) Diagnose(*report);
    evaluated = EvaluateNow();
  }
  if (run_.saver == nullptr) return evaluated;
  if (done() || !evaluated.ok() || wish != Wish::kNone || Due(run_.config.checkpoint_every)) Save();
  if (!evaluated.ok()) {
    run_.progress.Print(absl::StrFormat(
        "the evaluation of step %d failed: saving a checkpoint, which `deeper eval` can evaluate",
        run_.step));
  }
  return evaluated;
}

Wish TrainLoop::MyWish() const {
  if (StopSignals::came()) return Wish::kStop;
  const double minutes = run_.config.checkpoint_minutes;
  const bool due = minutes > 0 && run_.comm.rank() == 0 && Seconds() - last_save_ >= 60 * minutes;
  return due ? Wish::kSave : Wish::kNone;
}

// The position in the data counts trained batches, not prefetched ones.
void TrainLoop::Advance(const StepReport& report) {
  run_.data_state.samples_trained += report.global_rows;
  run_.data_state.epoch = report.last_in_epoch ? report.epoch + 1 : report.epoch;
  run_.data_state.batch = report.last_in_epoch ? 0 : report.batch + 1;
}

absl::Status TrainLoop::Watch(const StepReport& report) {
  std::vector<Event> events;
  absl::Status status;
  for (size_t i = 0; i < monitors_.size() && status.ok(); ++i)
    status = monitors_[i]->Observe({run_.step, report, log_is_due()}, events);
  for (const Event& event : events) run_.Tell(event);
  return status;
}

void TrainLoop::Log(const StepReport& report, float lr) {
  meter_.Add(report);
  if (log_is_due()) {
    const Event event = meter_.Read(run_.step, lr, run_.loader->times());
    run_.Tell(event);
    shown_.loss = event.fields.at("loss");
    shown_.images_per_second = event.fields.at("images_per_second");
  }
  shown_.step = run_.step;
  shown_.epoch = report.epoch;
  shown_.lr = lr;
  run_.progress.Update(shown_);
}

// Before the evaluation, which may overwrite the gradients. They are the same on all ranks.
void TrainLoop::Diagnose(const StepReport& report) {
  if (run_.comm.rank() == 0)
    run_.Tell(DiagnosisEvent(run_.step, report.global_rows, DiagnoseStages(run_.net->model(), *run_.params),
                             dead_classes_));
}

absl::Status TrainLoop::EvaluateNow() {
  if (run_.eval_net == nullptr) return absl::OkStatus();
  SynchronizeStatistics();
  const bool averages = run_.params->averages() != nullptr;
  if (averages) run_.params->ExchangeAverages();
  const absl::StatusOr<EvalResult> result =
      Evaluate(*run_.eval_net, run_.device, *run_.val_data, run_.Preset(), run_.comm, Tta::kNone);
  if (averages) run_.params->ExchangeAverages();
  RETURN_IF_ERROR(result.status());
  run_.Tell(EvalEvent(run_.step, *result, run_.config.val_split));
  top1_ = static_cast<double>(result->top1) / static_cast<double>(result->count);
  return absl::OkStatus();
}

// Without --sync_bn, running statistics cover the samples of one rank. All ranks continue with their mean.
void TrainLoop::SynchronizeStatistics() {
  if (run_.comm.size() == 1 || run_.params->statistics_elements() == 0 || run_.config.sync_bn) return;
  if (std::exchange(statistics_agree_, true)) return;  // a mean of equal numbers may round
  const int64_t count = run_.params->statistics_elements();
  for (float* const statistics : {run_.params->statistic_values(), run_.params->statistic_averages()}) {
    if (statistics == nullptr) continue;
    Scale(run_.device, 1.0f / static_cast<float>(run_.comm.size()), statistics, count);
    run_.device_comm()
        .AllReduce(statistics, static_cast<size_t>(count), CommType::kF32, ReduceOp::kSum,
                   run_.device.stream())
        .Wait();
  }
}

void TrainLoop::Save() {
  EnterPhase(Phase::kCheckpoint);
  last_save_ = Seconds();
  SynchronizeStatistics();
  run_.saver->Save({run_.step, run_.data_state, run_.model_config, top1_});
}

// Without its last save, the work since the one before would be lost. So this tries again, for two minutes,
// while the server of the file system does not answer.
absl::Status TrainLoop::FinishSaving() {
  constexpr int kLongestPause = 64;  // seconds
  absl::Status saved = ReportSaves(run_.saver->Finish());
  for (int pause = 1; absl::IsUnavailable(saved) && pause <= kLongestPause; pause *= 2) {
    run_.progress.Print(absl::StrFormat("saving step %d again in %d s", run_.step, pause));
    for (int second = 0; second < pause; ++second) {
      EnterPhase(Phase::kCheckpoint);  // shows the watchdog that this rank is alive
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
    EnterPhase(Phase::kCheckpoint);
    run_.saver->Save({run_.step, run_.data_state, run_.model_config, top1_});
    saved = ReportSaves(run_.saver->Finish());
  }
  return saved;
}

// Returns the status of the last one.
absl::Status TrainLoop::ReportSaves(const std::vector<SaveReport>& reports) {
  absl::Status last;
  for (const SaveReport& report : reports) {
    const std::string path = StepDirectory(run_.config.checkpoint_dir, report.step);
    last = report.status;
    if (!last.ok()) {
      const std::string reason(last.message());
      run_.Tell({"checkpoint_failed",
                 {{"step", report.step}, {"reason", reason}},
                 absl::StrCat("warning: checkpoint ", path,
                              " was NOT saved; earlier checkpoints are unchanged: ", reason)});
      continue;
    }
    run_.Tell({"checkpoint",
               {{"step", report.step},
                {"path", path},
                {"seconds", report.seconds},
                {"stall_ms", report.stall_ms},
                {"wait_ms", report.wait_ms}},
               absl::StrFormat("checkpoint %s committed after %.2f s; training waited %.0f ms", path,
                               report.seconds, report.stall_ms)});
    if (!report.warning.empty())
      run_.progress.Print(absl::StrCat("warning: old checkpoints were not removed: ", report.warning));
  }
  return last;
}

}  // namespace

absl::Status Train(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out) {
  RETURN_IF_ERROR(Agree(comm, Validate(config)));
  std::signal(SIGPIPE, SIG_IGN);       // `| head`: the log is lost, the training is not
  std::optional<StopSignals> signals;  // without checkpoints, signals end the run as by default
  if (!config.checkpoint_dir.empty()) signals.emplace();
  ASSIGN_OR_RETURN(const std::unique_ptr<Watchdog> watchdog, StartWatchdog(config, comm));
  TrainSetup run(config, comm, device, out);
  RETURN_IF_ERROR(run.Prepare());
  return TrainLoop(run).Run();
}

}  // namespace deeper
