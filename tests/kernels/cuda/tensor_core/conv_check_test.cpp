// The check that our kernels must pass before use, with naive convolutions as kernel and as library.
#include "kernels/cuda/tensor_core/conv_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/base/max_window.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "tests/kernels/test_device.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;
using Spoil = std::function<void(const PlanOperands&)>;

CudaDevice& HostDevice() {
  static const auto device = testing::MakeHostCudaDevice();
  return AsCuda(*device);
}

// The naive convolution, followed by `spoil` on its result.
class NaiveAlgorithm final : public Algorithm {
 public:
  NaiveAlgorithm(std::string name, const ConvolutionProblem& problem, Spoil spoil = nullptr,
                 absl::Status status = absl::OkStatus())
      : name_(std::move(name)),
        plan_(*HostDevice().Plan(problem)),
        spoil_(std::move(spoil)),
        status_(std::move(status)) {}

  absl::StatusOr<std::string> Serialize() const override { return name_; }
  absl::Status Enqueue(const PlanOperands& operands, Stream) override {
    if (!status_.ok()) return status_;
    plan_->Run(operands);
    if (spoil_ != nullptr) spoil_(operands);
    return absl::OkStatus();
  }

 private:
  const std::string name_;
  const std::unique_ptr<CudaPlan> plan_;
  const Spoil spoil_;
  const absl::Status status_;
};

// Proposes `size` algorithms. The first fails to run, and the second is the convolution.
class NaiveChoice final : public AlgorithmChoice {
 public:
  NaiveChoice(std::string name, const ConvolutionProblem& problem, size_t size)
      : name_(std::move(name)), problem_(ConvolutionCheck::LibraryProblem(problem)), size_(size) {}
  absl::Status Ask() override { return size_ > 0 ? absl::OkStatus() : absl::UnimplementedError(name_); }
  size_t size() const override { return size_; }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return std::make_unique<NaiveAlgorithm>(
        name_ + std::to_string(index), problem_, nullptr,
        index == 1 ? absl::OkStatus() : absl::InternalError("does not run"));
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    if (serialized.substr(0, 1) != name_) return absl::NotFoundError(name_);
    return std::make_unique<NaiveAlgorithm>(serialized, problem_);
  }

 private:
  const std::string name_;
  const ConvolutionProblem problem_;
  const size_t size_;
};

constexpr int64_t kPitch = 24;
ConvolutionProblem Problem(bool masked) {
  ConvolutionProblem p = {.n = 2, .h = 5, .w = 4, .c = 16, .k = 16, .kernel = 3};
  p.pad = 1;
  p.x_pitch = p.y_pitch = p.mask_pitch = kPitch;
  p.mask_dx = masked;
  p.pass = masked ? ConvolutionProblem::Pass::kBackwardData : ConvolutionProblem::Pass::kForward;
  p.bias = p.relu = !masked;
  return p;
}

std::vector<bf16> Random(size_t bytes) {
  static std::minstd_rand generator;
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<bf16> numbers(bytes / sizeof(bf16));
  for (bf16& number : numbers) number = ToBf16(uniform(generator));
  return numbers;
}

// The check's status for the convolution with `spoil` applied to its result.
absl::Status Verdict(const ConvolutionProblem& problem, const Spoil& spoil, size_t library_size = 2) {
  const OperandSizes sizes = SizesOf(problem);
  std::vector<bf16> a = Random(sizes.a), b = Random(sizes.b), bias = Random(sizes.bias),
                    mask = Random(sizes.mask), d(sizes.d / sizeof(bf16));
  std::vector<float> sums(sizes.sums / sizeof(float));
  std::vector<uint8_t> argmax(sizes.argmax);
  NaiveChoice library("library", problem, library_size);
  NaiveAlgorithm own("own", problem, spoil);
  const PlanCache no_file("", "");
  ConvolutionCheck check(problem, &library, HostDevice(), std::chrono::hours(1), no_file);
  const PlanOperands operands = {.a = a.data(),
                                 .b = b.data(),
                                 .d = d.data(),
                                 .bias = bias.data(),
                                 .mask = mask.data(),
                                 .sums = sums.data(),
                                 .argmax = argmax.data()};
  const absl::Status first = check(own, operands);
  EXPECT_EQ(check(own, operands), first);  // the library's result is reused
  return first;
}

bf16& Element(const PlanOperands& operands, int64_t pixel, int64_t channel) {
  return static_cast<bf16*>(operands.d)[pixel * kPitch + channel];
}
void Scale(bf16& value, float factor) {
  value = ToBf16(ToFloat(value) * factor);
}

// The sums that the kernels store: those of the rounded elements.
void SumStored(const PlanOperands& operands) {
  for (int64_t channel = 0; channel < 16; ++channel) {
    operands.sums[channel] = 0;
    for (int64_t pixel = 0; pixel < 40; ++pixel)
      operands.sums[channel] += ToFloat(Element(operands, pixel, channel));
  }
}

TEST(ConvolutionCheckTest, WhatAgreesPasses) {
  EXPECT_TRUE(Verdict(Problem(false), nullptr).ok()) << Verdict(Problem(false), nullptr);
  EXPECT_TRUE(Verdict(Problem(true), SumStored).ok()) << Verdict(Problem(true), SumStored);
}

TEST(ConvolutionCheckTest, FindsOneWrongElement) {
  const auto message = [](bool masked, const Spoil& spoil) {
    const absl::Status status = Verdict(Problem(masked), spoil);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_THAT(message(false, [](const PlanOperands& o) { Element(o, 39, 15) = ToBf16(100); }),
              HasSubstr("at pixel 39, channel 15: 100, and the library has "));
  EXPECT_THAT(message(false, [](const PlanOperands& o) { Element(o, 7, 3) = {0xFFFF}; }),  // not written
              HasSubstr("at pixel 7, channel 3"));
  EXPECT_THAT(message(false, [](const PlanOperands& o) { Element(o, 7, 16) = {0}; }),
              HasSubstr("outside its channels, at pixel 7"));
  EXPECT_THAT(message(true,
                      [](const PlanOperands& o) {  // no mask
                        const auto* const mask = static_cast<const bf16*>(o.mask);
                        for (int64_t i = 0; i < 40 * kPitch - 8; ++i) {
                          if (i % kPitch < 16 && !(ToFloat(mask[i]) > 0)) Element(o, 0, i) = ToBf16(1);
                        }
                        SumStored(o);
                      }),
              HasSubstr(": 1, and the library has 0"));
  EXPECT_THAT(message(true,
                      [](const PlanOperands& o) {
                        SumStored(o);
                        o.sums[5] += 0.01f;
                      }),
              HasSubstr("the sum of channel 5"));
}

ConvolutionProblem Pooled(ConvolutionProblem::Pass pass) {
  ConvolutionProblem p = Problem(false);
  p.kernel = 1;
  p.pad = 0;
  p.pass = pass;
  p.pool_x = true;
  p.bias = p.relu = pass == ConvolutionProblem::Pass::kForward;
  return p;
}

TEST(ConvolutionCheckTest, PooledInputs) {
  const ConvolutionProblem forward = Pooled(ConvolutionProblem::Pass::kForward),
                           gradient = Pooled(ConvolutionProblem::Pass::kBackwardWeights);
  EXPECT_EQ(Verdict(forward, nullptr), absl::OkStatus());
  EXPECT_EQ(Verdict(gradient, nullptr), absl::OkStatus());
  const auto message = [](const ConvolutionProblem& problem, const Spoil& spoil) {
    const absl::Status status = Verdict(problem, spoil);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_THAT(message(forward, [](const PlanOperands& o) { Element(o, 20, 2) = ToBf16(100); }),
              HasSubstr("at pixel 20, channel 2: 100"));
  EXPECT_THAT(message(forward, [](const PlanOperands& o) { o.argmax[39 * 16 + 3] = 7; }),
              HasSubstr("the maximum of pixel 39, channel 3: at 7, not "));
  EXPECT_THAT(message(gradient, [](const PlanOperands& o) { static_cast<float*>(o.d)[5 * 16 + 3] += 0.5f; }),
              HasSubstr("at filter 5, channel 3: "));
  // Requests x without pooling.
  ConvolutionProblem plain = gradient;
  plain.pool_x = false;
  EXPECT_FALSE(message(gradient, [&](const PlanOperands& o) {
                 std::vector<bf16> dw(16 * 16);
                 PlanOperands narrow = o;
                 narrow.d = dw.data();
                 (*HostDevice().Plan(plain))->Run(narrow);
                 for (size_t i = 0; i < dw.size(); ++i) static_cast<float*>(o.d)[i] = ToFloat(dw[i]);
               }).empty());
}

TEST(ConvolutionCheckTest, WideGradientsOfWeights) {
  ConvolutionProblem problem = Problem(false);
  problem.pass = ConvolutionProblem::Pass::kBackwardWeights;
  problem.bias = problem.relu = false;
  problem.wide_dw = true;
  EXPECT_EQ(Verdict(problem, nullptr), absl::OkStatus());
  const absl::Status status =
      Verdict(problem, [](const PlanOperands& o) { static_cast<float*>(o.d)[5 * 144 + 3] += 0.5f; });
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at filter 5, channel 3: "));
}

ConvolutionProblem PooledOutput(ConvolutionProblem::Pass pass) {
  ConvolutionProblem problem = {
      .pass = pass, .n = 2, .h = 21, .w = 18, .c = 8, .k = 16, .kernel = 7, .stride = 2, .pad = 3};
  problem.pool_y = true;
  problem.bias = problem.relu = pass == ConvolutionProblem::Pass::kForward;
  return problem;
}

TEST(ConvolutionCheckTest, GradientsOfPooledOutputs) {
  const ConvolutionProblem problem = PooledOutput(ConvolutionProblem::Pass::kBackwardWeights);
  EXPECT_EQ(Verdict(problem, nullptr), absl::OkStatus());
  const auto message = [&](const Spoil& spoil) {
    const absl::Status status = Verdict(problem, spoil);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](const PlanOperands& o) { static_cast<float*>(o.d)[5 * 392 + 3] += 2; }),
              HasSubstr("at filter 5, channel 3: "));
  EXPECT_THAT(message([](const PlanOperands& o) { static_cast<float*>(o.d)[5 * 392 + 4] = 2; }),
              HasSubstr("at filter 5, channel 4: 2, and the library has 0"));
  EXPECT_THAT(message([](const PlanOperands& o) { o.sums[7] += 0.1f; }), HasSubstr("the sum of channel 7"));
  EXPECT_THAT(message([](const PlanOperands& o) { o.argmax[39] = 77; }), HasSubstr("the maximum of pixel 2"));
}

TEST(ConvolutionCheckTest, PooledOutputs) {
  const ConvolutionProblem problem = PooledOutput(ConvolutionProblem::Pass::kForward);
  EXPECT_EQ(Verdict(problem, nullptr), absl::OkStatus());
  const size_t count = SizesOf(problem).argmax;
  ASSERT_EQ(count, 2u * 6 * 5 * 16);
  const auto message = [&](const Spoil& spoil) {
    const absl::Status status = Verdict(problem, spoil);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](const PlanOperands& o) { static_cast<bf16*>(o.d)[20 * 16 + 2] = ToBf16(100); }),
              HasSubstr("at pixel 20, channel 2: 100"));
  // The centre of every window; one that is above the image; none; not written.
  for (const int place : {4, 0, int{kNoMaximum}, 0xFF}) {
    EXPECT_THAT(message([&](const PlanOperands& o) { std::fill_n(o.argmax, count, place); }),
                HasSubstr("the maximum of pixel "));
  }
  EXPECT_THAT(message([&](const PlanOperands& o) {  // of a masked maximum
                const auto* const y = static_cast<const bf16*>(o.d);
                for (size_t i = 0; i < count; ++i) {
                  if (!(ToFloat(y[i]) > 0)) o.argmax[i] = 4;
                }
              }),
              HasSubstr(": not at 4"));
}

TEST(ConvolutionCheckTest, RoundingIsNoDifference) {
  const auto spoil = [](float factor) {
    return [factor](const PlanOperands& o) {
      for (int64_t pixel = 0; pixel < 40; ++pixel) {
        for (int64_t channel = 0; channel < 16; ++channel) Scale(Element(o, pixel, channel), factor);
      }
    };
  };
  EXPECT_TRUE(Verdict(Problem(false), spoil(1 + 1.0f / 256)).ok());
  EXPECT_FALSE(Verdict(Problem(false), spoil(1 + 1.0f / 32)).ok());
}

TEST(ConvolutionCheckTest, NothingPassesWithoutALibraryThatRuns) {
  EXPECT_THAT(std::string(Verdict(Problem(false), nullptr, 1).message()), HasSubstr("to compare with runs"));
  EXPECT_FALSE(Verdict(Problem(false), nullptr, 0).ok());
  NaiveAlgorithm own("own", Problem(false));
  const PlanCache no_file("", "");
  ConvolutionCheck check(Problem(false), nullptr, HostDevice(), std::chrono::hours(1), no_file);
  EXPECT_FALSE(check(own, {}).ok());
}

TEST(BothChoicesTest, OneAfterTheOther) {
  const auto both = [](size_t first, size_t second) {
    return BothChoices(std::make_unique<NaiveChoice>("a", Problem(false), first),
                       std::make_unique<NaiveChoice>("b", Problem(false), second));
  };
  BothChoices choice = both(2, 1);
  ASSERT_TRUE(choice.Ask().ok());
  ASSERT_EQ(choice.size(), 3u);
  EXPECT_EQ(*(*choice.Build(1))->Serialize(), "a1");
  EXPECT_EQ(*(*choice.Build(2))->Serialize(), "b0");
  EXPECT_EQ(*(*choice.Load("a7"))->Serialize(), "a7");
  EXPECT_EQ(*(*choice.Load("b7"))->Serialize(), "b7");
  EXPECT_FALSE(choice.Load("c").ok());
  EXPECT_TRUE(both(0, 1).Ask().ok());
  EXPECT_TRUE(both(1, 0).Ask().ok());
  EXPECT_EQ(both(0, 0).Ask(), absl::UnimplementedError("a"));
}

}  // namespace
}  // namespace deeper
