#include "trainer/engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/base/status.h"

namespace deeper {
namespace {

double RateAfterWarmup(const ScheduleOptions& o, int64_t step) {
  // From 1 at the end of warm-up to 0 at total_steps.
  const double remaining = 1 - std::min(1.0, static_cast<double>(step - o.warmup_steps) /
                                                 static_cast<double>(o.total_steps - o.warmup_steps));
  const int64_t drops = o.kind == ScheduleKind::kStep ? step / o.step_size : 0;
  double part = 1;  // of the way from min_lr to base_lr
  switch (o.kind) {
    case ScheduleKind::kConstant:
      return o.base_lr;
    case ScheduleKind::kStep:
      return o.base_lr * std::pow(o.gamma, static_cast<double>(drops));
    case ScheduleKind::kPoly:
      part = std::pow(remaining, o.power);
      break;
    case ScheduleKind::kLinear:
      part = remaining;
      break;
    case ScheduleKind::kCosine:
      part = (1 - std::cos(std::numbers::pi * remaining)) / 2;
      break;
  }
  return o.min_lr + (o.base_lr - o.min_lr) * part;
}

}  // namespace

// Comparisons are written as !(in range) so that NaN is out of range.
absl::Status ValidateSchedule(const ScheduleOptions& o) {
  const auto error = [](const auto&... parts) {
    return InvalidArgument("learning-rate schedule: ", parts...);
  };
  if (!(o.base_lr > 0 && std::isfinite(o.base_lr)))
    return error("the learning rate must be a positive number, not ", o.base_lr);
  if (o.warmup_steps < 0) return error("warm-up of ", o.warmup_steps, " steps is negative");
  const bool is_step = o.kind == ScheduleKind::kStep, is_poly = o.kind == ScheduleKind::kPoly;
  if (is_step && o.step_size <= 0)
    return error("'step' needs a positive number of steps between drops, not ", o.step_size);
  if (is_step && !(o.gamma > 0 && o.gamma <= 1)) return error("gamma must be in (0, 1], not ", o.gamma);
  if (is_step || o.kind == ScheduleKind::kConstant) return absl::OkStatus();
  if (o.total_steps <= o.warmup_steps) {
    return error("'poly', 'linear' and 'cosine' need more steps in total (", o.total_steps,
                 ") than warm-up takes (", o.warmup_steps,
                 "): use a shorter --warmup_epochs, or more --epochs or --max_steps");
  }
  if (!(o.min_lr >= 0 && o.min_lr <= o.base_lr))
    return error("the final learning rate must be in [0, ", o.base_lr, "], not ", o.min_lr);
  if (is_poly && !(o.power > 0 && std::isfinite(o.power)))
    return error("the power of 'poly' must be positive, not ", o.power);
  return absl::OkStatus();
}

float LearningRate(const ScheduleOptions& o, int64_t step) {
  if (step >= o.warmup_steps) return static_cast<float>(RateAfterWarmup(o, step));
  return static_cast<float>(o.base_lr * static_cast<double>(step + 1) / static_cast<double>(o.warmup_steps));
}

}  // namespace deeper
