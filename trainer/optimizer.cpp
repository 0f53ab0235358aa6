#include "trainer/optimizer.h"

#include <algorithm>
#include <vector>

namespace deeper {

Optimizer::Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device)
    : options_(options),
      params_(params),
      device_(device),
      decays_(device.Allocate(static_cast<size_t>(params.trained_elements() / kDecayGroup))),
      lr_(device.Allocate(sizeof(float))),
      staged_lr_(device.AllocateStaging(sizeof(float))) {
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
  SgdStep(device_, sgd, lr_.as<float>(),
          {params_.values(), params_.grads(), params_.momentum(), params_.narrow_values(),
           decays_.as<uint8_t>(), params_.trained_elements()});
}

}  // namespace deeper
