// Updates all parameters from their gradients, over the flat arenas.
//
// Sharding the state over the ranks is the first stage of ZeRO (Rajbhandari et al. 2020). A rank updates the
// parameters whose state it keeps, and an all-gather sends their new values to the others. All ranks still
// sum all gradients while backward runs. A reduce-scatter would be enough, but it adds in another order; this
// way every weight has the same bits as without sharding. With n fp32 parameters, s arenas of state and w
// ranks, each rank saves 4ns (1 - 1/w) bytes of memory and the same part of the update. It sends 4n (1 - 1/w)
// more bytes per step, half of what the sum of the gradients sends; and a half of that for a copy in bf16.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "kernels/ops/arrays/update.h"
#include "trainer/engine/params.h"

namespace deeper {

// A factor on the learning rate of the parameters whose names match a pattern of the shell, such as
// "inception3*" or "*.bias". 0 freezes them: their values do not change.
struct LrScale {
  std::string pattern;
  float factor = 1;
};

// UpdateArrays::lr_scales of all trained parameters; empty without rows. The last row that matches a
// parameter decides. InvalidArgument: no parameter matches a row, or neighbours in memory need different
// factors.
absl::StatusOr<std::vector<float>> LrScalesOf(const std::vector<LrScale>& rows, const ParamStore& params);

struct OptimizerOptions {
  std::string name = "sgd";  // one of OptimizerNames()
  float momentum = 0.9f;
  float weight_decay = 0.0f;          // of weights; biases and batch norm's scale and shift are not decayed
  int64_t first_step = 0;             // steps that a resumed run has done already
  std::vector<float> lr_scales = {};  // of LrScalesOf
  float lars_trust = 0.001f;          // lars: TrustArguments::coefficient
  float ema_decay = 0;                // of ParamStore's averages, if it has them (UpdateAverage)
};

// The values of --optimizer.
std::vector<std::string> OptimizerNames();
// StateArenas::names for an optimizer.
std::vector<std::string> OptimizerState(std::string_view name);

class Optimizer {
 public:
  // `params`, which have the optimizer's state, and `comm` must outlive the optimizer. `comm`: the ranks that
  // share the state, for memory of the device; nullptr if it is not sharded.
  Optimizer(const OptimizerOptions& options, ParamStore& params, Device& device,
            Communicator* comm = nullptr);

  // Begins the next training step, skipped or not, with this learning rate. Earlier work must be complete.
  void BeginStep(float lr);
  // Updates values, states and averages in place from grads, on the device's stream. It reads the rate from
  // memory, so that a recorded step follows BeginStep, and `skip` (UpdateArrays::skip). Collective if the
  // state is sharded: `skip` must then be the same on every rank.
  void Step(const uint32_t* skip = nullptr);
  // Time that Step waited for other ranks' weights since the last call. 0 if a recording ran it.
  double TakeWaitMs() { return std::exchange(wait_ms_, 0.0); }

 private:
  void PrepareTrust(const OptimizerOptions& options);
  void GatherValues();
  template <class T>
  void Gather(T* arena);  // of which this rank has updated its slice

  const UpdateRule rule_;
  const float ema_decay_;
  ParamStore& params_;
  Device& device_;
  Communicator* const comm_;
  Buffer decays_, lr_scales_;  // of UpdateArrays; lr_scales_ may be empty
  // lars: of all tensors, TrustArguments::tensors, ratios and workspace; the tensor of each group.
  TrustArguments trust_;
  Buffer tensors_, ratios_, trust_workspace_, tensor_of_group_;
  StepScalars next_;
  Buffer now_, staged_now_;  // StepScalars
  double wait_ms_ = 0;
};

}  // namespace deeper
