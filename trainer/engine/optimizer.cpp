#include "trainer/engine/optimizer.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/base/check.h"

namespace deeper {

Optimizer::Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device, Communicator* comm)
    : options_(options),
      params_(params),
      device_(device),
      comm_(comm),
      decays_(device.Allocate(static_cast<size_t>(params.trained_elements() / kDecayGroup))),
      lr_(device.Allocate(sizeof(float))),
      staged_lr_(device.AllocateStaging(sizeof(float))) {
  DEEPER_CHECK(!params.momentum_is_sharded() || (comm != nullptr && params.narrow_values() == nullptr));
  std::vector<uint8_t> decays(decays_.bytes());
  for (const Param& param : params.trained()) {
    const int64_t first = param.offset / kDecayGroup;
    const int64_t groups = (param.layout.stored_elements + kDecayGroup - 1) / kDecayGroup;
    std::fill_n(decays.begin() + first, groups, param.spec.role == ParamRole::kWeight);
  }
  device.Copy(decays_.data(), decays.data(), decays.size());
  device.Synchronize();
}

void Optimizer::SetLearningRate(float lr) {
  *staged_lr_.as<float>() = lr;
  device_.Copy(lr_.data(), staged_lr_.data(), sizeof lr);
}

void Optimizer::Step() {
  device_.Annotate("optimizer");
  const SgdParams sgd{options_.momentum, options_.weight_decay, options_.nesterov};
  const int64_t first = params_.momentum_first();  // 0 unless sharded
  SgdStep(device_, sgd, lr_.as<float>(),
          {params_.values() + first, params_.grads() + first, params_.momentum(), params_.narrow_values(),
           decays_.as<uint8_t>() + first / kDecayGroup, params_.momentum_elements()});
  if (params_.momentum_is_sharded()) GatherWeights();
}

void Optimizer::GatherWeights() {
  const auto start = std::chrono::steady_clock::now();
  const size_t bytes = static_cast<size_t>(params_.momentum_elements()) * sizeof(float);
  comm_->AllGather(params_.values() + params_.momentum_first(), params_.values(), bytes, device_.stream())
      .Wait();
  wait_ms_ = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace deeper
