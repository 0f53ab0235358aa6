#include "trainer/scaling/cuda_plan.h"

#include <algorithm>
#include <memory>

#include "kernels/base/status.h"
#include "kernels/cuda/planning_device.h"
#include "trainer/engine/network.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/params.h"

namespace deeper {

absl::StatusOr<StepPlan> PlanStep(const Model& model, int64_t batch, DType precision, bool fusion,
                                  const GpuSpec& gpu) {
  ASSIGN_OR_RETURN(const std::unique_ptr<PlanningDevice> made, MakePlanningDevice(DevicePropertiesJson(gpu)));
  PlanningDevice& device = *made;
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Network> net,
      Network::Prepare(model, {.rows = batch, .precision = precision, .training = true, .fusion = fusion},
                       device));
  ASSIGN_OR_RETURN(const std::unique_ptr<ParamStore> params,
                   ParamStore::Create(net->Params(), device, /*training=*/true, net->wants_narrow_params(),
                                      {OptimizerState("sgd")}));
  RETURN_IF_ERROR(net->Bind(*params));
  Optimizer optimizer({}, *params, device);

  StepPlan plan = {.gpu = gpu,
                   .device = device.Describe(),
                   .batch = batch,
                   .precision = precision,
                   .fusion = fusion,
                   .launches = {},
                   .arena_bytes = net->arena_bytes(),
                   .parameter_bytes = params->bytes()};
  const auto write_down = [&](StepPlan::Phase phase, const auto& work) {
    device.Clear();
    work();
    for (const auto& [scope, launch, executed] : device.launches())
      plan.launches.push_back({phase, scope, launch, executed});
  };
  write_down(StepPlan::Phase::kForward, [&] { net->Forward(); });
  write_down(StepPlan::Phase::kBackward, [&] { net->Backward([](size_t) {}); });
  write_down(StepPlan::Phase::kUpdate, [&] { optimizer.Step(); });
  return plan;
}

void PlanCost::Add(const StepPlan::PhasedLaunch& phased, const StepPlan& plan) {
  ++launches;
  forward += phased.phase == StepPlan::Phase::kForward;
  backward += phased.phase == StepPlan::Phase::kBackward;
  bytes += phased.launch.bytes;
  macs += phased.launch.macs;
  floor_us += FloorMicroseconds(phased.launch, plan.gpu, plan.precision);
  predicted_us += TimeOf(phased.launch, phased.work, plan.gpu, plan.precision).us() + LatencyOf(phased.work);
}

std::vector<PlanCost> ModuleCosts(const StepPlan& plan) {
  std::vector<PlanCost> costs;
  for (const StepPlan::PhasedLaunch& launch : plan.launches) {
    auto cost = std::find_if(costs.begin(), costs.end(),
                             [&](const PlanCost& known) { return known.module == launch.module; });
    if (cost == costs.end()) cost = costs.insert(costs.end(), PlanCost{.module = launch.module});
    cost->Add(launch, plan);
  }
  return costs;
}

PlanCost TotalCost(const StepPlan& plan) {
  PlanCost total = {.module = "total"};
  for (const StepPlan::PhasedLaunch& launch : plan.launches) total.Add(launch, plan);
  return total;
}

double PredictedImagesPerSecond(const StepPlan& plan) {
  return 1e6 * static_cast<double>(plan.batch) / TotalCost(plan).predicted_us;
}

double MostImagesPerSecond(const StepPlan& plan, double efficiency) {
  double us = 0;
  for (const StepPlan::PhasedLaunch& launch : plan.launches) {
    us += FloorMicroseconds(launch.launch, plan.gpu, plan.precision, efficiency);
  }
  return 1e6 * static_cast<double>(plan.batch) / us;
}

}  // namespace deeper
