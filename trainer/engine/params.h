// All parameters of a model in flat float32 arenas, for the optimizer, the all-reduce and checkpoints.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/buffer.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

struct Param {
  std::string name;    // "inception3a.branch2.1.conv.weight"
  ParamSpec spec;      // shape as in files
  ParamLayout layout;  // as in memory
  int64_t offset = 0;  // elements into its arena: trained (values, grads, states) or statistics
  int node = 0;        // of the model
  // Parameters of one run are contiguous, in the order of their places. -1: no run.
  int run = -1, place = 0;
};

// One of `count` equal parts of an arena.
struct ArenaSlice {
  int index = 0, count = 1;
};

// An optimizer's state for every trained parameter: an arena per name, of which this rank has a slice.
struct StateArenas {
  std::vector<std::string> names = {};  // also the tensors' roles in checkpoints
  ArenaSlice slice = {};
  // Also keep moving averages of all trained values and statistics (Optimizer updates them), whole on every
  // rank.
  bool averages = false;
};

class ParamStore {
 public:
  // Takes the parameters of all nodes in forward order and assigns `offset`: each on a 64-byte boundary or in
  // a run that begins on one, trained ones in one arena, statistics in another. `training` also allocates
  // gradients and `states`. All memory starts as zeros. ResourceExhausted if the device has too little
  // memory. `narrow` keeps a copy of the values in bf16 as well (OpBinding::narrow_params). The arena of
  // trained parameters is padded so that its slices have equally many whole decay groups.
  static absl::StatusOr<std::unique_ptr<ParamStore>> Create(std::vector<Param> params, Device& device,
                                                            bool training, bool narrow = false,
                                                            StateArenas states = {});

  const std::vector<Param>& trained() const { return trained_; }
  const std::vector<Param>& statistics() const { return statistics_; }
  // The trained parameter that has this element of its arena; nullptr in the padding between parameters.
  const Param* TrainedAt(int64_t element) const;
  // Elements of an arena, padding included.
  int64_t trained_elements() const { return trained_elements_; }
  int64_t statistics_elements() const { return statistics_elements_; }
  // The state is of the trained elements [state_first, state_first + state_elements).
  const std::vector<std::string>& state_names() const { return state_arenas_.names; }
  bool state_is_sharded() const { return state_arenas_.slice.count > 1; }
  int64_t state_elements() const { return trained_elements_ / state_arenas_.slice.count; }
  int64_t state_first() const { return state_arenas_.slice.index * state_elements(); }
  // Device memory of all arenas.
  size_t bytes() const;

  float* values() const { return values_.as<float>(); }
  float* grads() const { return grads_.as<float>(); }
  float* state(size_t i) const { return states_[i].as<float>(); }  // [state_elements]; of state_names()[i]
  bool IsSharded(const float* arena) const;
  float* statistic_values() const { return statistic_values_.as<float>(); }
  // [trained_elements] and [statistics_elements], or nullptr (StateArenas::averages).
  float* averages() const { return averages_.as<float>(); }
  float* statistic_averages() const { return statistic_averages_.as<float>(); }
  // [trained_elements] bf16, or nullptr. Write and the optimizer keep it up to date.
  void* narrow_values() const { return narrow_values_.data(); }

  // A store of the same parameters on the same device, all zeros.
  absl::StatusOr<std::unique_ptr<ParamStore>> MakeEmpty() const;
  // Exchanges the memory, and so all values, with a store that MakeEmpty made. Nothing is copied: pointers
  // into one store's arenas then point into the other's. Not allowed after KeepInPlace.
  void Swap(ParamStore& other);
  // Sets the averages to the present values, for the first step.
  void StartAverages();
  // Exchanges the values and statistics with their averages, for an evaluation, in place. A second call
  // undoes it. Overwrites the gradients.
  void ExchangeAverages();
  // Called by owners of pointers into the arenas.
  void KeepInPlace() { in_place_ = true; }

  // Fills values and statistics from (seed, parameter name): the same on every device, in every layout.
  void Initialize(uint64_t seed);

  // One tensor, as in files (canonical layout, host memory) <-> in the arena `values`, `grads`, a `state` or
  // `statistic_values`. For a sharded arena, Write stores the part in this slice, and Read is not possible.
  void Read(const Param& param, const float* arena, float* canonical) const;
  void Write(const Param& param, const float* canonical, float* arena);

 private:
  ParamStore(std::vector<Param> params, Device& device, StateArenas states);

  std::vector<Param> trained_, statistics_;
  int64_t trained_elements_ = 0, statistics_elements_ = 0;
  const StateArenas state_arenas_;
  bool in_place_ = false;
  Buffer values_, grads_, statistic_values_, narrow_values_, averages_, statistic_averages_;
  std::vector<Buffer> states_;
  Device& device_;
};

}  // namespace deeper
