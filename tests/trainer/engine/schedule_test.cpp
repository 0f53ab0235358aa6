#include "trainer/engine/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <string>

namespace deeper {
namespace {

using ::testing::HasSubstr;

TEST(Schedule, WarmupRisesLinearlyToTheBaseRate) {
  const ScheduleOptions options{.base_lr = 0.8, .warmup_steps = 4};
  EXPECT_FLOAT_EQ(LearningRate(options, 0), 0.2f);
  EXPECT_FLOAT_EQ(LearningRate(options, 1), 0.4f);
  EXPECT_FLOAT_EQ(LearningRate(options, 3), 0.8f);
  EXPECT_FLOAT_EQ(LearningRate(options, 4), 0.8f);
  EXPECT_FLOAT_EQ(LearningRate(options, 1000000), 0.8f);
}

TEST(Schedule, StepDropsByGammaCountedFromStepZero) {
  const ScheduleOptions options{
      .kind = ScheduleKind::kStep, .base_lr = 1, .warmup_steps = 5, .gamma = 0.5, .step_size = 10};
  EXPECT_FLOAT_EQ(LearningRate(options, 4), 1.0f);
  EXPECT_FLOAT_EQ(LearningRate(options, 9), 1.0f);
  EXPECT_FLOAT_EQ(LearningRate(options, 10), 0.5f);
  EXPECT_FLOAT_EQ(LearningRate(options, 39), 0.125f);
  EXPECT_FLOAT_EQ(LearningRate(options, 40), 0.0625f);
}

TEST(Schedule, PolyFollowsItsClosedForm) {
  const ScheduleOptions options{.kind = ScheduleKind::kPoly,
                                .base_lr = 0.5,
                                .warmup_steps = 10,
                                .total_steps = 110,
                                .power = 2,
                                .min_lr = 0.1};
  for (const int64_t step : {10, 35, 60, 109}) {
    const double t = static_cast<double>(step - 10) / 100;
    EXPECT_FLOAT_EQ(LearningRate(options, step), static_cast<float>(0.1 + 0.4 * (1 - t) * (1 - t))) << step;
  }
  EXPECT_FLOAT_EQ(LearningRate(options, 110), 0.1f);
  EXPECT_FLOAT_EQ(LearningRate(options, 500), 0.1f);
}

TEST(Schedule, LinearIsPolyWithPowerOne) {
  const ScheduleOptions linear{.kind = ScheduleKind::kLinear,
                               .base_lr = 0.5,
                               .warmup_steps = 10,
                               .total_steps = 110,
                               .power = 7,
                               .min_lr = 0.1};
  for (const int64_t step : {0, 10, 35, 110, 500}) {
    ScheduleOptions poly = linear;
    poly.kind = ScheduleKind::kPoly;
    poly.power = 1;
    EXPECT_FLOAT_EQ(LearningRate(linear, step), LearningRate(poly, step)) << step;
  }
  EXPECT_FLOAT_EQ(LearningRate(linear, 60), 0.3f);
}

TEST(Schedule, CosineFollowsItsClosedForm) {
  const ScheduleOptions options{
      .kind = ScheduleKind::kCosine, .base_lr = 0.4, .warmup_steps = 20, .total_steps = 100, .min_lr = 0.04};
  for (const int64_t step : {20, 40, 60, 99}) {
    const double t = static_cast<double>(step - 20) / 80;
    EXPECT_FLOAT_EQ(LearningRate(options, step),
                    static_cast<float>(0.04 + 0.36 * (1 + std::cos(std::numbers::pi * t)) / 2))
        << step;
  }
  EXPECT_FLOAT_EQ(LearningRate(options, 60), 0.22f);
  EXPECT_FLOAT_EQ(LearningRate(options, 100), 0.04f);
  EXPECT_FLOAT_EQ(LearningRate(options, 101), 0.04f);
}

struct Invalid {
  ScheduleOptions options;
  std::string message;
};

class InvalidSchedule : public ::testing::TestWithParam<Invalid> {};

TEST_P(InvalidSchedule, IsRefusedByName) {
  const absl::Status status = ValidateSchedule(GetParam().options);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Options, InvalidSchedule,
    ::testing::Values(
        Invalid{{.base_lr = 0}, "positive number, not 0"},
        Invalid{{.base_lr = std::numeric_limits<double>::quiet_NaN()}, "positive number, not nan"},
        Invalid{{.warmup_steps = -1}, "warm-up of -1 steps"},
        Invalid{{.kind = ScheduleKind::kStep}, "steps between drops, not 0"},
        Invalid{{.kind = ScheduleKind::kStep, .gamma = 1.5, .step_size = 10},
                "gamma must be in (0, 1], not 1.5"},
        Invalid{{.kind = ScheduleKind::kPoly, .warmup_steps = 10, .total_steps = 10}, "in total (10)"},
        Invalid{{.kind = ScheduleKind::kPoly, .total_steps = 10, .power = 0}, "power of 'poly'"},
        Invalid{{.kind = ScheduleKind::kCosine, .base_lr = 0.1, .total_steps = 10, .min_lr = 0.2},
                "in [0, 0.1], not 0.2"}));

TEST(Schedule, ValidOptionsPass) {
  EXPECT_TRUE(ValidateSchedule({}).ok());
  EXPECT_TRUE(ValidateSchedule({.kind = ScheduleKind::kStep, .step_size = 1}).ok());
  EXPECT_TRUE(ValidateSchedule({.kind = ScheduleKind::kPoly, .total_steps = 1}).ok());
  EXPECT_TRUE(ValidateSchedule({.kind = ScheduleKind::kCosine, .warmup_steps = 1, .total_steps = 2}).ok());
}

}  // namespace
}  // namespace deeper
