#include "trainer/optimizer.h"

namespace deeper {

Optimizer::Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device)
    : options_(options), params_(params), device_(device) {
  for (const Param& param : params.trained()) {
    const bool decay = param.spec.role == ParamRole::kWeight;
    if (!ranges_.empty() && ranges_.back().decay == decay) {
      ranges_.back().count = param.offset + param.layout.stored_elements - ranges_.back().offset;
    } else {
      ranges_.push_back({param.offset, param.layout.stored_elements, decay});
    }
  }
}

void Optimizer::Step(float lr) {
  for (const Range& range : ranges_) {
    const SgdParams sgd{lr, options_.momentum, range.decay ? options_.weight_decay : 0.0f, options_.nesterov};
    SgdStep(device_, sgd, params_.values() + range.offset, params_.grads() + range.offset,
            params_.momentum() + range.offset, range.count);
  }
}

}  // namespace deeper
