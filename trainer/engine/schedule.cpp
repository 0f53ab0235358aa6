#include "trainer/engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

// From 1 at the end of warm-up to 0 at total_steps.
double RemainingPart(const ScheduleOptions& options, int64_t step) {
  const auto done = static_cast<double>(step - options.warmup_steps);
  return 1 - std::min(1.0, done / static_cast<double>(options.total_steps - options.warmup_steps));
}

double AfterWarmup(const ScheduleOptions& options, int64_t step) {
  const double range = options.base_lr - options.min_lr;
  switch (options.kind) {
    case ScheduleKind::kConstant:
      break;
    case ScheduleKind::kStep:
      return options.base_lr * std::pow(options.gamma, static_cast<double>(step / options.step_size));
    case ScheduleKind::kPoly:
      return options.min_lr + range * std::pow(RemainingPart(options, step), options.power);
    case ScheduleKind::kCosine:
      return options.min_lr + range * (1 - std::cos(std::numbers::pi * RemainingPart(options, step))) / 2;
  }
  return options.base_lr;
}

}  // namespace

absl::Status ValidateSchedule(const ScheduleOptions& options) {
  const auto error = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("learning-rate schedule: ", parts...));
  };
  const bool decays_to_end = options.kind == ScheduleKind::kPoly || options.kind == ScheduleKind::kCosine;
  // Written as !(in range) so that NaN is out of range.
  if (!(options.base_lr > 0 && std::isfinite(options.base_lr))) {
    return error("the learning rate must be a positive number, not ", options.base_lr);
  }
  if (options.warmup_steps < 0) return error("warm-up of ", options.warmup_steps, " steps is negative");
  if (options.kind == ScheduleKind::kStep && options.step_size <= 0) {
    return error("'step' needs a positive number of steps between drops, not ", options.step_size);
  }
  if (options.kind == ScheduleKind::kStep && !(options.gamma > 0 && options.gamma <= 1)) {
    return error("gamma must be in (0, 1], not ", options.gamma);
  }
  if (decays_to_end && options.total_steps <= options.warmup_steps) {
    return error("'poly' and 'cosine' need more steps in total (", options.total_steps,
                 ") than warm-up takes (", options.warmup_steps, ")");
  }
  if (decays_to_end && !(options.min_lr >= 0 && options.min_lr <= options.base_lr)) {
    return error("the final learning rate must be in [0, ", options.base_lr, "], not ", options.min_lr);
  }
  if (options.kind == ScheduleKind::kPoly && !(options.power > 0 && std::isfinite(options.power))) {
    return error("the power of 'poly' must be positive, not ", options.power);
  }
  return absl::OkStatus();
}

float LearningRate(const ScheduleOptions& options, int64_t step) {
  if (step < options.warmup_steps) {
    return static_cast<float>(options.base_lr * static_cast<double>(step + 1) /
                              static_cast<double>(options.warmup_steps));
  }
  return static_cast<float>(AfterWarmup(options, step));
}

}  // namespace deeper
