#include "trainer/scaling/cuda_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/cuda/plans/cublaslt.h"

namespace deeper {
namespace {

using ::testing::_;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr int64_t kBatch = 16;
using Phase = StepPlan::Phase;

Model GoogLeNet() {
  return *MakeModel("googlenet", {});
}

StepPlan PlanOf(DType precision, const std::string& gpu = "h200", bool fusion = true) {
  const auto plan = PlanStep(GoogLeNet(), kBatch, precision, fusion, *FindGpu(gpu));
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *plan;
}

PlanCost CostOf(const StepPlan& plan, const std::string& module) {
  for (PlanCost& cost : ModuleCosts(plan)) {
    if (cost.module == module) return cost;
  }
  ADD_FAILURE() << module;
  return {};
}

TEST(CudaPlan, CountsLaunchesOfEveryModule) {
  const StepPlan bf16 = PlanOf(DType::kBf16, "h200", false), fp32 = PlanOf(DType::kF32, "h200", false);
  // Four branches are copied into y; they have six convolutions and a pool.
  const PlanCost module = CostOf(bf16, "inception3a");
  EXPECT_EQ(module.forward, 4 + 6 + 1);
  // Four slices of dy; for each convolution dbias in three stages, dx and dw; a widened dw for the 3x3 and
  // the 5x5; the pool.
  EXPECT_EQ(module.backward, 4 + 6 * 5 + 2 + 1);
  EXPECT_EQ(module.launches, module.forward + module.backward);
  EXPECT_EQ(CostOf(fp32, "inception3a").backward, 4 + 6 * 5 + 1);
  // No gradient of the images.
  EXPECT_EQ(CostOf(bf16, "conv1").forward, 1);
  EXPECT_EQ(CostOf(bf16, "conv1").backward, 3 + 1 + 1);
  EXPECT_EQ(CostOf(bf16, "loss").launches, 3 * 4);  // a head's: lanes, rows, gradient, sum
  EXPECT_EQ(CostOf(bf16, "optimizer").launches, 1);
  EXPECT_EQ(CostOf(bf16, "optimizer").forward + CostOf(bf16, "optimizer").backward, 0);

  int64_t launches = 0;
  for (const PlanCost& cost : ModuleCosts(bf16)) launches += cost.launches;
  EXPECT_EQ(launches, std::ssize(bf16.launches));
  EXPECT_EQ(TotalCost(bf16).launches, launches);
}

// With fusion: the combined 1x1, the 3x3, the 5x5, and the pool with its 1x1; backward the join and two sums
// of its tiles, for the 3x3 and the 5x5 two gradients each, one of them with a copy of its slice and widened,
// dW of the pooled 1x1, dP, dW and dx.
TEST(CudaPlan, FusionSavesLaunchesAndBytes) {
  const StepPlan fused = PlanOf(DType::kBf16), separate = PlanOf(DType::kBf16, "h200", false);
  for (const PlanCost& cost : ModuleCosts(fused)) {
    const PlanCost before = CostOf(separate, cost.module);
    if (cost.module == "conv1") {  // with maxpool1, and 4 channels of an image instead of 8
      EXPECT_EQ(2 * cost.macs, before.macs);
      EXPECT_EQ(cost.forward, 1);
      EXPECT_EQ(cost.backward, 1);
      EXPECT_LT(cost.bytes, before.bytes);
      continue;
    }
    EXPECT_NE(cost.module, "maxpool1");
    EXPECT_EQ(cost.macs, before.macs) << cost.module;
    if (cost.module.find("inception") != 0) continue;
    EXPECT_EQ(cost.forward, 4) << cost.module;
    EXPECT_EQ(cost.backward, 3 + 2 * 4 + 4) << cost.module;
    EXPECT_LT(cost.bytes, before.bytes) << cost.module;
    EXPECT_LT(cost.floor_us, before.floor_us) << cost.module;
  }
  EXPECT_LT(TotalCost(fused).bytes, 0.75 * static_cast<double>(TotalCost(separate).bytes));
}

// cuDNN copies the slices that the 3x3 and the 5x5 of a module read before it computes their weight
// gradients.
TEST(CudaPlan, CountsTheCopiesOfSlices) {
  const StepPlan plan = PlanOf(DType::kBf16);
  std::vector<int64_t> copies, gradients;
  for (const auto& [phase, module, launch, work] : plan.launches) {
    const std::string name = launch.name;
    if (module != "inception3a") continue;
    if (name == "copy of a slice") copies.push_back(launch.bytes);
    if (name == "conv 3x3 backward weights") gradients.push_back(launch.bytes);
  }
  const int64_t pixels = kBatch * 28 * 28, x = 2 * pixels * 96, y = 2 * pixels * 128, w = 2 * 128 * 9 * 96;
  EXPECT_THAT(copies, ::testing::UnorderedElementsAre(2 * x, 2 * 2 * pixels * 16)) << "read and written";
  EXPECT_THAT(gradients, ::testing::ElementsAre(x + y + w));
}

TEST(CudaPlan, MultipliesWhatTheModelSays) {
  const Model model = GoogLeNet();
  const auto shapes = InferShapes(model, kBatch);
  ASSERT_TRUE(shapes.ok()) << shapes.status();
  for (const auto& [precision, image_channels] : {std::pair(DType::kBf16, 4), std::pair(DType::kF32, 4)}) {
    const StepPlan plan = PlanOf(precision);
    std::map<std::string, int64_t> forward, backward;
    for (const auto& [phase, module, launch, work] : plan.launches) {
      (phase == Phase::kForward ? forward : backward)[module] += launch.macs;
    }
    for (size_t i = 0; i < model.nodes.size(); ++i) {
      const std::string& name = model.nodes[i].name;
      const bool first = model.nodes[i].input == kImages;
      const int64_t macs =
          first ? (*shapes)[i].op.macs / model.channels * image_channels : (*shapes)[i].op.macs;
      EXPECT_EQ(forward[name], macs) << name;
      EXPECT_EQ(backward[name], first ? macs : 2 * macs) << name;
    }
  }
}

// The first pool stays a launch of its own where it is not one that the convolution can compute.
TEST(CudaPlan, SomePoolsAreNotFused) {
  const auto is_fused = [](const auto& change) {
    Model model = GoogLeNet();
    model.nodes.resize(2);
    model.nodes.push_back({"mean", GlobalAvgPoolParams{}, 1});
    model.nodes.push_back({"fc", LinearParams{.out_features = 10}, 2});
    model.heads = {{"main", 3}};
    change(model, std::get<Conv2dParams>(model.nodes[0].op), std::get<PoolParams>(model.nodes[1].op));
    const auto plan = PlanStep(model, kBatch, DType::kBf16, /*fusion=*/true, *FindGpu("h200"));
    EXPECT_TRUE(plan.ok()) << plan.status();
    return std::ranges::none_of(plan->launches,
                                [](const auto& launch) { return launch.module == "maxpool1"; });
  };
  EXPECT_TRUE(is_fused([](Model&, Conv2dParams&, PoolParams&) {}));
  EXPECT_TRUE(is_fused([](Model& model, Conv2dParams&, PoolParams&) { model.channels = 4; }));
  EXPECT_TRUE(is_fused(
      [](Model&, Conv2dParams& conv, PoolParams& pool) { conv.dy_is_masked = pool.mask_dx = false; }));
  EXPECT_FALSE(is_fused([](Model& model, Conv2dParams&, PoolParams&) { model.channels = 5; }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams& conv, PoolParams&) { conv.out_channels = 96; }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams& conv, PoolParams&) { conv.kernel = 5; }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams& conv, PoolParams& pool) {
    conv.relu = conv.dy_is_masked = pool.mask_dx = false;
  }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams& conv, PoolParams& pool) {
    conv.batch_norm = true;
    conv.dy_is_masked = pool.mask_dx = false;
  }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams&, PoolParams& pool) { pool.ceil = true; }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams&, PoolParams& pool) { pool.pad = 0; }));
  EXPECT_FALSE(is_fused([](Model&, Conv2dParams&, PoolParams& pool) { pool.kernel = 2; }));
  EXPECT_FALSE(is_fused([](Model& model, Conv2dParams& conv, PoolParams& pool) {  // another reader
    conv.dy_is_masked = pool.mask_dx = false;
    model.nodes.push_back({"other", GlobalAvgPoolParams{}, 0});
    model.nodes.push_back({"other.fc", LinearParams{.out_features = 10}, 4});
    model.heads.push_back({"other", 5});
  }));
}

TEST(CudaPlan, WideTypesMoveMoreBytes) {
  const StepPlan bf16 = PlanOf(DType::kBf16), fp32 = PlanOf(DType::kF32);
  for (const PlanCost& cost : ModuleCosts(bf16)) {
    if (cost.module == "optimizer") continue;  // in bf16 it has one more array
    EXPECT_GT(CostOf(fp32, cost.module).bytes, cost.bytes) << cost.module;
  }
  EXPECT_GT(fp32.arena_bytes, bf16.arena_bytes);
  EXPECT_LT(MostImagesPerSecond(fp32, 1), MostImagesPerSecond(bf16, 1));
}

TEST(CudaPlan, Memory) {
  const Model model = GoogLeNet();
  const auto shapes = InferShapes(model, kBatch);
  ASSERT_TRUE(shapes.ok()) << shapes.status();
  // When backward begins, all outputs of convolutions and modules and tensors inside modules exist: two bytes
  // per element. Everything else cannot be more than all outputs, with a byte each for the place of a
  // maximum, dy and dx (four parts of a module's x are no larger than the largest map), and the workspace:
  // two maps inside a module, and the libraries'.
  int64_t kept = 0, all = 0, largest = 0;
  for (const NodeShape& node : *shapes) {
    const int64_t elements = node.op.inner_elements + node.op.y.elements();
    if (node.op.macs > 0) kept += 2 * elements;
    all += 3 * elements;
    largest = std::max(largest, 2 * node.op.y.elements());
  }
  const StepPlan plan = PlanOf(DType::kBf16);
  EXPECT_GT(plan.arena_bytes, static_cast<size_t>(kept));
  EXPECT_LT(plan.arena_bytes, static_cast<size_t>(all + 4 * largest) + cublaslt::kMaxWorkspaceBytes);

  int64_t parameters = 0;
  for (const NodeShape& node : *shapes) {
    for (const ParamSpec& spec : node.op.params) parameters += spec.elements();
  }
  const auto bytes = static_cast<double>(parameters * (4 + 4 + 4 + 2));
  EXPECT_GE(static_cast<double>(plan.parameter_bytes), bytes);
  EXPECT_LT(static_cast<double>(plan.parameter_bytes), 1.01 * bytes);  // with alignment
}

TEST(CudaPlan, FloorsAddUp) {
  const StepPlan plan = PlanOf(DType::kBf16);
  double us = 0;
  for (const PlanCost& cost : ModuleCosts(plan)) us += cost.floor_us;
  const PlanCost total = TotalCost(plan);
  EXPECT_NEAR(total.floor_us, us, 1e-6 * us);
  EXPECT_NEAR(MostImagesPerSecond(plan, 1), 1e6 * kBatch / us, 1e-3);
  EXPECT_LT(MostImagesPerSecond(plan, 0.6), MostImagesPerSecond(plan, 1));
  EXPECT_GT(us, 1e6 * static_cast<double>(total.bytes) / plan.gpu.bytes_per_second);
}

// Every own kernel of the step is in the table of counted instructions. A launch without work is a library's.
TEST(CudaPlan, OwnKernelsHaveCountedInstructions) {
  for (const bool fusion : {true, false}) {
    for (const auto& [phase, module, launch, work] : PlanOf(DType::kBf16, "h200", fusion).launches) {
      const std::string name = launch.name;
      const bool own_product = name.find("max pool + ") == 0 || name.find("+ mask") != std::string::npos ||
                               name.find("+ max pool") != std::string::npos;
      const bool library =
          !own_product && (name.find("conv") == 0 || name.find("copy") == 0 || name.find("matmul") == 0);
      EXPECT_EQ(work.warps == 0, library) << name;
      EXPECT_EQ(work.macs >= launch.macs && work.l2_bytes > 0, own_product) << name;
    }
  }
}

TEST(CudaPlan, PredictionsAreTheLargestOfThreeTimesAndPartialSums) {
  const GpuSpec gpu = *FindGpu("h200");
  const KernelModel model;
  const Launch launch = {"x", int64_t{1} << 30, int64_t{1} << 36};
  const LaunchTime library = TimeOf(launch, {}, gpu, DType::kBf16);
  EXPECT_DOUBLE_EQ(library.bytes_us, 1e6 * static_cast<double>(launch.bytes) / gpu.bytes_per_second);
  EXPECT_DOUBLE_EQ(library.products_us,
                   2e6 * static_cast<double>(launch.macs) / (model.matrix_efficiency * gpu.bf16_flops));
  EXPECT_EQ(library.instructions_us, 0);
  EXPECT_EQ(library.us(), std::max(library.bytes_us, library.products_us));

  const double clocks_per_us = model.clock * static_cast<double>(gpu.clock_khz) / 1e3;
  KernelWork work = {.warps = 8 * gpu.multiprocessors, .cycles = 1000, .waits = 0, .warps_on_sm = 8};
  EXPECT_DOUBLE_EQ(TimeOf(launch, work, gpu, DType::kBf16).instructions_us, 2 * 1000 / clocks_per_us);
  work.warps = 1;  // uses one scheduler
  EXPECT_DOUBLE_EQ(TimeOf(launch, work, gpu, DType::kBf16).instructions_us, 1000 / clocks_per_us);
  work.warps = 8 * gpu.multiprocessors + 1;  // two rounds
  work.waits = 5;
  EXPECT_DOUBLE_EQ(TimeOf(launch, work, gpu, DType::kBf16).instructions_us, 2 * 5 * model.load_us);
  work.macs = 2 * launch.macs;
  EXPECT_DOUBLE_EQ(TimeOf(launch, work, gpu, DType::kBf16).products_us, 2 * library.products_us);
  work.l2_bytes = int64_t{1} << 40;
  EXPECT_GT(TimeOf(launch, work, gpu, DType::kBf16).products_us, 2 * library.products_us);
  const double us = TimeOf(launch, work, gpu, DType::kBf16).us();
  work.partial_bytes = 1 << 20;
  EXPECT_DOUBLE_EQ(TimeOf(launch, work, gpu, DType::kBf16).us(), us + 2e6 * (1 << 20) / gpu.bytes_per_second);
}

// A kernel of deeper starts early after another one, on GPUs that can.
TEST(CudaPlan, EarlyStartsShortenLatency) {
  const KernelModel model;
  EXPECT_DOUBLE_EQ(LatencyOf({}), model.launch_us);
  EXPECT_DOUBLE_EQ(LatencyOf({.kernels = 3, .early = 2}), model.launch_us + 2 * model.early_us);
  const StepPlan plan = PlanOf(DType::kBf16);
  std::map<std::string, std::pair<int, int>> counts;  // by name: kernels, and those that start early
  for (const auto& [phase, module, launch, work] : plan.launches) {
    counts[launch.name].first += work.kernels;
    counts[launch.name].second += work.early;
  }
  EXPECT_THAT(counts["matmul nn"], Pair(_, 0));
  EXPECT_THAT(counts["softmax rows"], Pair(3, 3));
  EXPECT_THAT(counts["conv 3x3 backward data + mask"], Pair(18, 18));  // after the bias gradient
  EXPECT_THAT(counts["conv 5x5 backward data + mask"], Pair(18, 9));   // the second kernel of a branch
  for (const auto& [phase, module, launch, work] : PlanOf(DType::kBf16, "a100").launches)
    EXPECT_EQ(work.early, 0);
}

TEST(CudaPlan, PredictionsAddUp) {
  const StepPlan plan = PlanOf(DType::kBf16);
  double us = 0;
  for (const auto& [phase, module, launch, work] : plan.launches)
    us += TimeOf(launch, work, plan.gpu, plan.precision).us() + LatencyOf(work);
  EXPECT_NEAR(TotalCost(plan).predicted_us, us, 1e-6 * us);
  EXPECT_NEAR(PredictedImagesPerSecond(plan), 1e6 * kBatch / us, 1e-3);
  EXPECT_GT(us, TotalCost(plan).floor_us);
}

TEST(CudaPlan, EveryKnownGpu) {
  const PlanCost h200 = TotalCost(PlanOf(DType::kBf16));
  for (const std::string& name : GpuNames()) {
    const StepPlan plan = PlanOf(DType::kBf16, name);
    EXPECT_THAT(plan.device, HasSubstr(plan.gpu.name));
    EXPECT_EQ(TotalCost(plan).launches, h200.launches) << name;
    EXPECT_EQ(TotalCost(plan).bytes, h200.bytes) << name;
  }
}

}  // namespace
}  // namespace deeper
