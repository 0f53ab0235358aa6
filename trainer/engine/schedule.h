// Learning rate as a pure function of the step, so that a resumed run needs no state for it.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/base/choice.h"

namespace deeper {

enum class ScheduleKind {
  kConstant,  // base_lr
  kStep,      // base_lr * gamma^floor(step / step_size)
  kPoly,      // min_lr + (base_lr - min_lr) * (1 - t)^power
  kLinear,    // kPoly with power 1
  kCosine,    // min_lr + (base_lr - min_lr) * (1 + cos(pi t)) / 2: Loshchilov and Hutter 2017
};
constexpr auto Choices(ScheduleKind) {
  return std::to_array<Choice<ScheduleKind>>(
      {{"constant", ScheduleKind::kConstant, "--lr at every step"},
       {"step", ScheduleKind::kStep, "multiplied by --lr_gamma every --lr_step_epochs"},
       {"poly", ScheduleKind::kPoly, "falls to --lr_min as (1 - t)^lr_power; t goes from 0 to 1"},
       {"linear", ScheduleKind::kLinear, "falls to --lr_min in a straight line"},
       {"cosine", ScheduleKind::kCosine, "falls to --lr_min as (1 + cos(pi t)) / 2"}});
}

// t is the part done after warm-up: (step - warmup_steps) / (total_steps - warmup_steps), at most 1.
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kConstant;
  double base_lr = 0.01;
  int64_t warmup_steps = 0;  // step i of these takes base_lr * (i + 1) / warmup_steps: Goyal et al. 2017
  int64_t total_steps = 0;   // kPoly, kLinear, kCosine
  double gamma = 0.1;        // kStep
  int64_t step_size = 0;     // kStep: steps between two drops, counted from step 0
  double power = 1;          // kPoly
  double min_lr = 0;         // kPoly, kLinear, kCosine
};

// InvalidArgument names the option that is out of range.
absl::Status ValidateSchedule(const ScheduleOptions& options);

// For valid options and step >= 0.
float LearningRate(const ScheduleOptions& options, int64_t step);

}  // namespace deeper
