#include "trainer/engine/optimizer.h"

#include <algorithm>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/clock.h"
#include "kernels/base/small_buffer.h"

namespace deeper {
namespace {

struct Row {
  const char* name;
  std::vector<std::string> state;  // in the order of the rule and of checkpoints
  UpdateRule (*rule)(const OptimizerOptions&);
};

template <bool kNesterov>
UpdateRule Sgd(const OptimizerOptions& o) {
  return SgdRule{o.momentum, o.weight_decay, kNesterov};
}

const std::vector<Row>& Table() {
  static const std::vector<Row> rows = {{"sgd", {"momentum"}, Sgd<false>},
                                        {"nesterov", {"momentum"}, Sgd<true>}};
  return rows;
}

const Row& Find(std::string_view name) {
  const auto row = std::ranges::find(Table(), name, &Row::name);
  DEEPER_CHECK(row != Table().end(), std::string(name));
  return *row;
}

}  // namespace

std::vector<std::string> OptimizerNames() {
  std::vector<std::string> names;
  for (const Row& row : Table()) names.push_back(row.name);
  return names;
}

std::vector<std::string> OptimizerState(std::string_view name) {
  return Find(name).state;
}

Optimizer::Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device, Communicator* comm)
    : rule_(Find(options.name).rule(options)),
      params_(params),
      device_(device),
      comm_(comm),
      decays_(AllocateSmall(device, static_cast<size_t>(params.trained_elements() / kDecayGroup))),
      next_{.step = static_cast<int32_t>(options.first_step)},
      now_(AllocateSmall(device, sizeof(StepScalars))),
      staged_now_(AllocateSmallStaging(device, sizeof(StepScalars))) {
  DEEPER_CHECK(params.state_names() == Find(options.name).state, options.name);
  DEEPER_CHECK(!params.state_is_sharded() || (comm != nullptr && params.narrow_values() == nullptr));
  std::vector<uint8_t> decays(decays_.bytes());
  for (const Param& param : params.trained()) {
    const int64_t first = param.offset / kDecayGroup;
    const int64_t groups = (param.layout.stored_elements + kDecayGroup - 1) / kDecayGroup;
    std::fill_n(decays.begin() + first, groups, param.spec.role == ParamRole::kWeight);
  }
  device.Copy(decays_.data(), decays.data(), decays.size());
  device.Synchronize();
}

void Optimizer::BeginStep(float lr) {
  next_ = {lr, next_.step + 1};
  *staged_now_.as<StepScalars>() = next_;
  device_.Copy(now_.data(), staged_now_.data(), sizeof(StepScalars));
}

void Optimizer::Step(const uint32_t* skip) {
  device_.Annotate("optimizer");
  const int64_t first = params_.state_first();  // 0 unless sharded
  UpdateArrays arrays = {.w = params_.values() + first,
                         .g = params_.grads() + first,
                         .narrow = params_.narrow_values(),
                         .decays = decays_.as<uint8_t>() + first / kDecayGroup,
                         .count = params_.state_elements(),
                         .skip = skip};
  for (size_t i = 0; i < params_.state_names().size(); ++i) arrays.states[i] = params_.state(i);
  Update(device_, rule_, now_.as<StepScalars>(), arrays);
  wait_ms_ = 0;
  if (!params_.state_is_sharded() || (skip != nullptr && *skip != 0)) return;  // sharded: on a CPU
  const double start = Milliseconds();
  const size_t bytes = static_cast<size_t>(params_.state_elements()) * sizeof(float);
  comm_->AllGather(params_.values() + params_.state_first(), params_.values(), bytes, device_.stream())
      .Wait();
  wait_ms_ = Milliseconds() - start;
}

}  // namespace deeper
