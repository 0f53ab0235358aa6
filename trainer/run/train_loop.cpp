#include "trainer/run/train_loop.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/agree.h"
#include "comm/gradient_reducer.h"
#include "comm/phase.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "kernels/base/trace.h"
#include "kernels/ops/arrays/flat.h"
#include "trainer/engine/evaluate.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/train_step.h"
#include "trainer/monitor/bad_samples.h"
#include "trainer/monitor/data_bottleneck.h"
#include "trainer/monitor/step_meter.h"
#include "trainer/monitor/stragglers.h"
#include "trainer/monitor/stuck_head.h"
#include "trainer/monitor/trace_file.h"
#include "trainer/run/stop.h"

namespace deeper {
namespace {

constexpr int64_t kStuckWindow = 200;      // steps
constexpr int64_t kStragglerWindow = 50;   // steps
constexpr int64_t kBottleneckWindow = 50;  // steps
constexpr int kMostSkippedInARow = 100;    // steps; then skipping does not help

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

// Forward passes of a step on this rank.
int MicroBatches(const TrainSetup& run) {
  if (IsElastic(run.config)) return run.config.elastic_slices / run.comm.size();
  return static_cast<int>((run.ShareRows() + run.net->options().rows - 1) / run.net->options().rows);
}

class TrainLoop {
 public:
  explicit TrainLoop(TrainSetup& run);
  absl::Status Run();

 private:
  absl::Status Step();
  Wish MyWish() const;
  void Advance(const StepReport& report);
  absl::Status Inspect(const StepReport& report);
  absl::Status SkipOrStop(const std::string& culprit);
  absl::Status CountBadSamples();
  void Log(const StepReport& report, float lr);
  absl::Status EvaluateNow();
  void SynchronizeStatistics();
  void Save();
  void ReportTrace(const absl::StatusOr<bool>& written);
  absl::Status ReportSaves(const std::vector<SaveReport>& reports);
  bool Due(int64_t every) const { return every > 0 && run_.step % every == 0; }
  bool done() const { return run_.step == run_.total_steps; }

  TrainSetup& run_;
  GradientAccumulator accumulator_;
  GradientReducer reducer_;
  FiniteGuard guard_;
  Optimizer optimizer_;
  TrainStep train_step_;
  StepMeter meter_;
  Stragglers stragglers_;
  StuckHeads stuck_;
  DataBottleneck bottleneck_;
  BadSamples bad_samples_;
  StepTrace trace_;
  ProgressState shown_;

  int64_t skipped_ = 0, skipped_in_a_row_ = 0;  // steps that were not finite
  std::optional<double> top1_;                  // after this step
  double last_save_ = Seconds();                // began then; before the first: the loop
  bool stopped_ = false;
};

TrainLoop::TrainLoop(TrainSetup& run)
    : run_(run),
      accumulator_(*run.params, run.device,
                   IsElastic(run.config) ? Accumulation::kTree : Accumulation::kRunning),
      reducer_(run.device_comm(), run.params->grads(), run.net->gradient_pieces(), BucketBytesOf(run.config),
               run.gradient_sum),
      guard_(*run.net, *run.params, run.comm, run.device),
      optimizer_({.momentum = static_cast<float>(run.config.momentum),
                  .weight_decay = static_cast<float>(run.config.weight_decay),
                  .nesterov = run.config.optimizer == OptimizerKind::kNesterov},
                 *run.params, run.device, &run.comm),
      train_step_(*run.loader, *run.net, accumulator_, reducer_, guard_, optimizer_, run.device,
                  run.config.seed, &run.statistics_sum),
      meter_(run.net->model(), run.comm),
      stragglers_(run.comm, kStragglerWindow),
      stuck_(run.net->model(), kStuckWindow),
      bottleneck_(kBottleneckWindow, run.cores),
      bad_samples_(run.comm, run.config.allow_bad),
      trace_(run.config.trace, run.config.trace_first, run.config.trace_steps, run.comm),
      shown_{.total_steps = run.total_steps,
             .epochs = run.config.epochs,
             .global_batch = run.config.global_batch} {}

absl::Status TrainLoop::Run() {
  absl::Status status = Agree(run_.comm, accumulator_.Reserve(MicroBatches(run_)));
  TraceLane("compute");
  const double start = Seconds();
  while (status.ok() && !done() && !stopped_) {
    trace_.BeginStep(run_.step + 1);
    status = Step();
    if (status.ok()) ReportTrace(trace_.EndStep(run_.step, done() || stopped_));
  }
  if (run_.saver != nullptr) {
    EnterPhase(Phase::kCheckpoint);
    absl::Status saved = ReportSaves(run_.saver->Finish());
    if (status.ok()) status = saved;
  }
  if (!status.ok()) return status;
  if (stopped_) {
    return WithExitCode(
        absl::CancelledError(absl::StrCat("stopped by a signal after step ", run_.step,
                                          ", which is saved. The same command goes on from there")),
        ExitCode::kPreempted);
  }
  if (bad_samples_.count() > 0) {
    run_.progress.Print(absl::StrFormat("warning: %d samples could not be read and were replaced by others",
                                        bad_samples_.count()));
  }
  run_.Warn(run_.metrics.Done(run_.step, Seconds() - start));
  return absl::OkStatus();
}

absl::Status TrainLoop::Step() {
  EnterStep(run_.step + 1);
  const float lr = LearningRate(run_.schedule, run_.step);
  const absl::StatusOr<StepReport> report = train_step_.Run(lr);
  if (!report.ok())
    run_.comm.Abort(static_cast<int>(ExitCode::kData),
                    absl::StrCat("step ", run_.step, ": ", report.status().message()));
  ++run_.step;
  EnterPhase(Phase::kReport);
  const Wish wish = StrongestWish(MyWish(), run_.comm);
  stopped_ = wish == Wish::kStop && !done();
  Advance(*report);
  RETURN_IF_ERROR(Inspect(*report));
  if (Due(run_.config.log_every) || done()) {
    RETURN_IF_ERROR(CountBadSamples());
  }
  Log(*report, lr);
  top1_.reset();
  // Whoever asked for the end may not wait for long: no evaluation then.
  if (!stopped_ &&
      (done() || (run_.config.eval_every > 0 ? Due(run_.config.eval_every) : report->last_in_epoch))) {
    RETURN_IF_ERROR(EvaluateNow());
  }
  if (run_.saver == nullptr) return absl::OkStatus();
  ReportSaves(run_.saver->TakeReports()).IgnoreError();  // the next one may succeed
  if (done() || wish != Wish::kNone || Due(run_.config.checkpoint_every)) Save();
  return absl::OkStatus();
}

Wish TrainLoop::MyWish() const {
  if (StopSignals::came()) return Wish::kStop;
  const double minutes = run_.config.checkpoint_minutes;
  const bool due = minutes > 0 && run_.comm.rank() == 0 && Seconds() - last_save_ >= 60 * minutes;
  return due ? Wish::kSave : Wish::kNone;
}

// The position in the data after a step: what was trained, not what was prefetched.
void TrainLoop::Advance(const StepReport& report) {
  run_.data_state.samples_trained += report.global_rows;
  run_.data_state.epoch = report.last_in_epoch ? report.epoch + 1 : report.epoch;
  run_.data_state.batch = report.last_in_epoch ? 0 : report.batch + 1;
}

absl::Status TrainLoop::Inspect(const StepReport& report) {
  meter_.Add(report);
  for (const std::string& slow : stragglers_.Observe(run_.step, {report.data_wait_ms, report.compute_ms})) {
    run_.progress.Print(absl::StrCat("warning: ", slow));
    run_.Warn(run_.metrics.Straggler(run_.step, slow));
  }
  if (const auto found = bottleneck_.Observe(report, run_.loader->times(), run_.loader->workers())) {
    run_.progress.Print(absl::StrCat("warning: ", found->what));
    run_.Warn(run_.metrics.Bottleneck(run_.step, found->stage, found->what));
  }
  if (!report.finite) return SkipOrStop(guard_.Culprit(report.heads));
  skipped_in_a_row_ = 0;
  for (const std::string& warning : stuck_.Observe(run_.step, MeanLosses(report)))
    run_.progress.Print(warning);
  return absl::OkStatus();
}

// After a step that left the weights as they were.
absl::Status TrainLoop::SkipOrStop(const std::string& culprit) {
  run_.Warn(run_.metrics.NonFinite(run_.step, culprit));
  ++skipped_;
  const std::string what = absl::StrCat("step ", run_.step, ": ", culprit);
  if (run_.config.on_nonfinite == OnNonfinite::kSkip && ++skipped_in_a_row_ < kMostSkippedInARow) {
    run_.progress.Print(absl::StrCat("warning: skipped ", what));
    return absl::OkStatus();
  }
  return WithExitCode(
      absl::OutOfRangeError(absl::StrCat(
          what,
          run_.config.on_nonfinite == OnNonfinite::kSkip
              ? absl::StrCat("; ", skipped_in_a_row_, " steps in a row")
              : "",
          ". The weights are those of the step before. Go on from the newest checkpoint with a lower --lr, a "
          "longer --warmup_epochs or --on_nonfinite=skip")),
      ExitCode::kNotFinite);
}

absl::Status TrainLoop::CountBadSamples() {
  if (run_.config.allow_bad == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<std::string> news, bad_samples_.Gather(*run_.loader));
  for (const std::string& what : news) {
    run_.progress.Print(absl::StrCat("warning: replaced ", what));
    run_.Warn(run_.metrics.BadSample(run_.step, what));
  }
  return absl::OkStatus();
}

void TrainLoop::Log(const StepReport& report, float lr) {
  if (Due(run_.config.log_every) || done()) {
    StepMetrics metrics = meter_.Read(run_.step, lr, run_.loader->times());
    metrics.nonfinite_steps = skipped_;
    run_.Warn(run_.metrics.Step(metrics));
    shown_.loss = metrics.loss;
    shown_.images_per_second = metrics.images_per_second;
  }
  shown_.step = run_.step;
  shown_.epoch = report.epoch;
  shown_.lr = lr;
  run_.progress.Update(shown_);
}

absl::Status TrainLoop::EvaluateNow() {
  if (run_.eval_net == nullptr) return absl::OkStatus();
  SynchronizeStatistics();
  ASSIGN_OR_RETURN(EvalResult result,
                   Evaluate(*run_.eval_net, run_.device, *run_.val_data, run_.Preset(), run_.comm));
  const double count = static_cast<double>(result.count);
  const EvalMetrics metrics = {.step = run_.step,
                               .top1 = static_cast<double>(result.top1) / count,
                               .top5 = static_cast<double>(result.top5) / count,
                               .loss = result.loss,
                               .count = result.count};
  run_.progress.Print(
      absl::StrFormat("evaluation at step %d: top-1 %.4f, top-5 %.4f, loss %.4f over %d samples", run_.step,
                      metrics.top1, metrics.top5, result.loss, result.count));
  run_.Warn(run_.metrics.Eval(metrics));
  top1_ = metrics.top1;
  return absl::OkStatus();
}

// Each rank's running statistics saw its own samples, but for --sync_bn: everyone continues from their mean.
void TrainLoop::SynchronizeStatistics() {
  if (run_.comm.size() == 1 || run_.params->statistics_elements() == 0 || run_.config.sync_bn) return;
  const int64_t count = run_.params->statistics_elements();
  Scale(run_.device, 1.0f / static_cast<float>(run_.comm.size()), run_.params->statistic_values(), count);
  run_.device_comm()
      .AllReduce(run_.params->statistic_values(), static_cast<size_t>(count), CommType::kF32, ReduceOp::kSum,
                 run_.device.stream())
      .Wait();
}

void TrainLoop::Save() {
  EnterPhase(Phase::kCheckpoint);
  last_save_ = Seconds();
  SynchronizeStatistics();
  run_.saver->Save({run_.step, run_.data_state, run_.model_config, top1_});
}

void TrainLoop::ReportTrace(const absl::StatusOr<bool>& written) {
  run_.Warn(written.status());
  if (written.value_or(false)) run_.progress.Print(absl::StrCat("timeline written to ", run_.config.trace));
}

// How the last of them went.
absl::Status TrainLoop::ReportSaves(const std::vector<SaveReport>& reports) {
  absl::Status last;
  for (const SaveReport& report : reports) {
    const std::string path = StepDirectory(run_.config.checkpoint_dir, report.step);
    last = report.status;
    if (!last.ok()) {
      run_.progress.Print(absl::StrCat("warning: checkpoint ", path,
                                       " was NOT saved; those before it are as they were: ", last.message()));
      run_.Warn(run_.metrics.CheckpointFailed(report.step, std::string(last.message())));
      continue;
    }
    run_.progress.Print(absl::StrFormat("checkpoint %s committed after %.2f s; training waited %.0f ms", path,
                                        report.seconds, report.stall_ms));
    run_.Warn(run_.metrics.Checkpoint({report.step, path, report.seconds, report.stall_ms, report.wait_ms}));
    if (!report.warning.empty())
      run_.progress.Print(absl::StrCat("warning: old checkpoints were not removed: ", report.warning));
  }
  return last;
}

}  // namespace

absl::Status RunSteps(TrainSetup& run) {
  return TrainLoop(run).Run();
}

}  // namespace deeper
