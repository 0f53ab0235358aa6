// The plan of a training step on a GPU that need not be present: its launches, their minimum cost and their
// predicted time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "trainer/models/model.h"
#include "trainer/scaling/gpu_spec.h"
#include "trainer/scaling/kernel_model.h"

namespace deeper {

struct StepPlan {
  enum class Phase : uint8_t { kForward, kBackward, kUpdate };
  struct PhasedLaunch {
    Phase phase;
    std::string module;  // the node, "loss" or "optimizer"
    Launch launch;
    KernelWork work;
  };

  GpuSpec gpu;
  std::string device;  // Device::Describe
  int64_t batch = 1;
  DType precision = DType::kF32;
  bool fusion = true;
  // Of a step that starts from images in device memory, in order. Multiply-accumulates are those of the
  // library calls, which include the channels that pad the images.
  std::vector<PhasedLaunch> launches;
  // Activations, their gradients, saved state and workspace, as Network::arena_bytes.
  size_t arena_bytes = 0;
  // Values, gradients, the optimizer's state and, with bf16, the bf16 copy of the values.
  size_t parameter_bytes = 0;
};

// `model` is one for training. Unimplemented: built without CUDA, or cuDNN has no engine for a convolution.
absl::StatusOr<StepPlan> PlanStep(const Model& model, int64_t batch, DType precision, bool fusion,
                                  const GpuSpec& gpu);

struct PlanCost {
  std::string module;
  int64_t launches = 0, forward = 0, backward = 0;  // all, and those of two phases
  int64_t bytes = 0, macs = 0;
  double floor_us = 0;      // sum of the launches' floors
  double predicted_us = 0;  // sum of their predicted times, with the time between them

  void Add(const StepPlan::PhasedLaunch& launch, const StepPlan& plan);
};

// In the order of their first launches.
std::vector<PlanCost> ModuleCosts(const StepPlan& plan);
PlanCost TotalCost(const StepPlan& plan);
// The throughput at the floors, with matrix products at this fraction of their peak.
double MostImagesPerSecond(const StepPlan& plan, double efficiency);
// The predicted throughput. Launches run one after the other.
double PredictedImagesPerSecond(const StepPlan& plan);

}  // namespace deeper
