#include "trainer/engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/base/status.h"

namespace deeper {
namespace {

// From 1 at the end of warm-up to 0 at total_steps.
double RemainingPart(const ScheduleOptions& options, int64_t step) {
  const auto done = static_cast<double>(step - options.warmup_steps);
  return 1 - std::min(1.0, done / static_cast<double>(options.total_steps - options.warmup_steps));
}

double Between(const ScheduleOptions& options, double part) {
  return options.min_lr + (options.base_lr - options.min_lr) * part;
}

template <class... Parts>
absl::Status Error(const Parts&... parts) {
  return InvalidArgument("learning-rate schedule: ", parts...);
}

// Comparisons are written as !(in range) so that NaN is out of range.
absl::Status CheckStep(const ScheduleOptions& options) {
  if (options.step_size <= 0)
    return Error("'step' needs a positive number of steps between drops, not ", options.step_size);
  if (!(options.gamma > 0 && options.gamma <= 1))
    return Error("gamma must be in (0, 1], not ", options.gamma);
  return absl::OkStatus();
}

absl::Status CheckDecayToEnd(const ScheduleOptions& options) {
  if (options.total_steps <= options.warmup_steps) {
    return Error("'poly' and 'cosine' need more steps in total (", options.total_steps,
                 ") than warm-up takes (", options.warmup_steps, ")");
  }
  if (!(options.min_lr >= 0 && options.min_lr <= options.base_lr))
    return Error("the final learning rate must be in [0, ", options.base_lr, "], not ", options.min_lr);
  if (options.kind == ScheduleKind::kPoly && !(options.power > 0 && std::isfinite(options.power)))
    return Error("the power of 'poly' must be positive, not ", options.power);
  return absl::OkStatus();
}

struct Schedule {
  absl::Status (*check)(const ScheduleOptions& options);         // of its own parameters
  double (*rate)(const ScheduleOptions& options, int64_t step);  // after the warm-up
};

// In the order of ScheduleKind.
constexpr Schedule kSchedules[] = {
    {[](const ScheduleOptions&) { return absl::OkStatus(); },
     [](const ScheduleOptions& o, int64_t) { return o.base_lr; }},
    {CheckStep,
     [](const ScheduleOptions& o, int64_t step) {
       const int64_t drops = step / o.step_size;
       return o.base_lr * std::pow(o.gamma, static_cast<double>(drops));
     }},
    {CheckDecayToEnd, [](const ScheduleOptions& o,
                         int64_t step) { return Between(o, std::pow(RemainingPart(o, step), o.power)); }},
    {CheckDecayToEnd,
     [](const ScheduleOptions& o, int64_t step) {
       return Between(o, (1 - std::cos(std::numbers::pi * RemainingPart(o, step))) / 2);
     }},
};

const Schedule& RowOf(ScheduleKind kind) {
  return kSchedules[static_cast<size_t>(kind)];
}

}  // namespace

absl::Status ValidateSchedule(const ScheduleOptions& options) {
  if (!(options.base_lr > 0 && std::isfinite(options.base_lr)))
    return Error("the learning rate must be a positive number, not ", options.base_lr);
  if (options.warmup_steps < 0) return Error("warm-up of ", options.warmup_steps, " steps is negative");
  return RowOf(options.kind).check(options);
}

float LearningRate(const ScheduleOptions& options, int64_t step) {
  if (step < options.warmup_steps) {
    return static_cast<float>(options.base_lr * static_cast<double>(step + 1) /
                              static_cast<double>(options.warmup_steps));
  }
  return static_cast<float>(RowOf(options.kind).rate(options, step));
}

}  // namespace deeper
