#include "trainer/engine/optimizer.h"

#include <fnmatch.h>

#include <algorithm>
#include <vector>

#include "kernels/base/check.h"
#include "kernels/base/clock.h"
#include "kernels/base/small_buffer.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr char kLars[] = "lars";

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
                                        {"nesterov", {"momentum"}, Sgd<true>},
                                        {kLars, {"momentum"}, Sgd<false>}};
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

absl::StatusOr<std::vector<float>> LrScalesOf(const std::vector<LrScale>& rows, const ParamStore& params) {
  if (rows.empty()) return std::vector<float>();
  constexpr float kUnset = -1;
  std::vector<float> scales(static_cast<size_t>(params.trained_elements() / kDecayGroup), kUnset);
  std::vector<bool> used(rows.size());
  for (const Param& param : params.trained()) {
    float factor = 1;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (fnmatch(rows[i].pattern.c_str(), param.name.c_str(), 0) != 0) continue;
      factor = rows[i].factor;
      used[i] = true;
    }
    const int64_t first = param.offset / kDecayGroup;
    const int64_t last = (param.offset + param.layout.stored_elements - 1) / kDecayGroup;
    for (int64_t group = first; group <= last; ++group) {
      float& scale = scales[static_cast<size_t>(group)];
      if (scale != kUnset && scale != factor) {
        return InvalidArgument(param.name,
                               " shares memory with a parameter of another learning rate: use a "
                               "pattern that names all convolutions of a module, or --fusion=off");
      }
      scale = factor;
    }
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!used[i]) {
      return InvalidArgument("--lr_scale, --freeze: no parameter matches ", rows[i].pattern,
                             "; those of this network are called ", params.trained().front().name, " to ",
                             params.trained().back().name);
    }
  }
  std::ranges::replace(scales, kUnset, 1.0f);  // padding
  return scales;
}

Optimizer::Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device, Communicator* comm)
    : rule_(Find(options.name).rule(options)),
      ema_decay_(options.ema_decay),
      params_(params),
      device_(device),
      comm_(comm),
      decays_(AllocateSmall(device, static_cast<size_t>(params.trained_elements() / kDecayGroup))),
      next_{.step = static_cast<int32_t>(options.first_step)},
      now_(AllocateSmall(device, sizeof(StepScalars))),
      staged_now_(AllocateSmallStaging(device, sizeof(StepScalars))) {
  DEEPER_CHECK(params.state_names() == Find(options.name).state, options.name);
  DEEPER_CHECK(!params.state_is_sharded() || comm != nullptr);
  std::vector<uint8_t> decays(decays_.bytes());
  for (const Param& param : params.trained()) {
    const int64_t first = param.offset / kDecayGroup;
    const int64_t groups = (param.layout.stored_elements + kDecayGroup - 1) / kDecayGroup;
    std::fill_n(decays.begin() + first, groups, param.spec.role == ParamRole::kWeight);
  }
  device.Copy(decays_.data(), decays.data(), decays.size());
  if (!options.lr_scales.empty()) {
    const size_t bytes = options.lr_scales.size() * sizeof(float);
    lr_scales_ = AllocateSmall(device, bytes);
    device.Copy(lr_scales_.data(), options.lr_scales.data(), bytes);
  }
  if (options.name == kLars) PrepareTrust(options);
  device.Synchronize();
}

void Optimizer::PrepareTrust(const OptimizerOptions& options) {
  std::vector<TrustTensor> tensors;
  std::vector<int32_t> tensor_of_group(decays_.bytes());
  for (const Param& param : params_.trained()) {
    // Parameters of one run may share a group. Biases all have the ratio 1; weights have their own groups, as
    // they have a multiple of 16 inputs.
    const bool decays = param.spec.role == ParamRole::kWeight;
    DEEPER_CHECK(!decays || param.offset % kDecayGroup == 0, param.name);
    const int64_t count = param.layout.stored_elements;
    const int64_t first = param.offset / kDecayGroup, last = (param.offset + count - 1) / kDecayGroup;
    std::fill(tensor_of_group.begin() + first, tensor_of_group.begin() + last + 1,
              static_cast<int32_t>(tensors.size()));
    tensors.push_back({param.offset, count, decays});
  }
  const auto count = std::ssize(tensors);
  const auto upload = [&](const auto& values, Buffer& to) {
    to = AllocateSmall(device_, values.size() * sizeof values[0]);
    device_.Copy(to.data(), values.data(), to.bytes());
    device_.Synchronize();
  };
  upload(tensors, tensors_);
  upload(tensor_of_group, tensor_of_group_);
  ratios_ = AllocateSmall(device_, tensors.size() * sizeof(float));
  trust_workspace_ = AllocateSmall(device_, TrustWorkspaceBytes(device_, count));
  trust_ = {.coefficient = options.lars_trust,
            .weight_decay = options.weight_decay,
            .w = params_.values(),
            .g = params_.grads(),
            .elements = params_.trained_elements(),
            .tensors = tensors_.as<TrustTensor>(),
            .count = count,
            .ratios = ratios_.as<float>(),
            .workspace = trust_workspace_.data()};
}

void Optimizer::BeginStep(float lr) {
  next_ = {lr, next_.step + 1};
  *staged_now_.as<StepScalars>() = next_;
  device_.Copy(now_.data(), staged_now_.data(), sizeof(StepScalars));
}

void Optimizer::Step(const uint32_t* skip) {
  device_.Annotate("optimizer");
  const int64_t first = params_.state_first();  // 0 unless sharded
  auto* const narrow = static_cast<uint16_t*>(params_.narrow_values());
  UpdateArrays arrays = {.w = params_.values() + first,
                         .g = params_.grads() + first,
                         .narrow = narrow == nullptr ? nullptr : narrow + first,
                         .decays = decays_.as<uint8_t>() + first / kDecayGroup,
                         .count = params_.state_elements(),
                         .skip = skip};
  if (lr_scales_.bytes() > 0) arrays.lr_scales = lr_scales_.as<float>() + first / kDecayGroup;
  for (size_t i = 0; i < params_.state_names().size(); ++i) arrays.states[i] = params_.state(i);
  if (trust_.count > 0) {
    FindTrustRatios(device_, trust_);
    arrays.tensors = tensor_of_group_.as<int32_t>() + first / kDecayGroup;
    arrays.ratios = ratios_.as<float>();
  }
  Update(device_, rule_, now_.as<StepScalars>(), arrays);
  wait_ms_ = 0;
  // The host can read the flag on a CPU only; elsewhere ranks also exchange what did not change.
  const bool skips = device_.type() == DeviceType::kCpu && skip != nullptr && *skip != 0;
  if (params_.state_is_sharded() && !skips) GatherValues();
  if (params_.averages() == nullptr) return;
  UpdateAverage(device_, ema_decay_, now_.as<StepScalars>(), params_.values(), params_.averages(),
                params_.trained_elements(), skip);
  if (params_.statistics_elements() == 0) return;
  UpdateAverage(device_, ema_decay_, now_.as<StepScalars>(), params_.statistic_values(),
                params_.statistic_averages(), params_.statistics_elements(), skip);
}

void Optimizer::GatherValues() {
  const double start = Milliseconds();
  Gather(params_.values());
  if (params_.narrow_values() != nullptr) Gather(static_cast<uint16_t*>(params_.narrow_values()));
  wait_ms_ = Milliseconds() - start;
}

template <class T>
void Optimizer::Gather(T* arena) {
  const size_t bytes = static_cast<size_t>(params_.state_elements()) * sizeof(T);
  comm_->AllGather(arena + params_.state_first(), arena, bytes, device_.stream()).Wait();
}

}  // namespace deeper
