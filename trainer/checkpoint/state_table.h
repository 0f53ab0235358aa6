// What a model's state is made of, and where in the flat state of a file each tensor lies.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/engine/params.h"

namespace deeper {

// Roles of tensors. Any other one names an arena of the optimizer's state (StateArenas::names).
inline constexpr char kWeightRole[] = "weight", kStatisticRole[] = "statistic";

// One tensor in the canonical layout: elements [first, first + count) of the flat state.
struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;
  std::string role = kWeightRole;
  int64_t first = 0, count = 0;

  friend bool operator==(const TensorEntry&, const TensorEntry&) = default;
  std::string ToString() const;  // "conv1.conv.weight [64, 3, 7, 7]"
  std::string NameAndRole() const { return name + " (" + role + ")"; }
  bool is_optimizer_state() const { return role != kWeightRole && role != kStatisticRole; }
};

// The same tensor in memory.
struct StateTensor {
  TensorEntry entry;
  const Param* param = nullptr;
  float* arena = nullptr;
};

// All weights, the optimizer's state arena by arena if it is wanted, all statistics: the order of the files.
// Points into `params`.
enum class WithOptimizer { kNo, kYes };
std::vector<StateTensor> StateTensors(const ParamStore& params, WithOptimizer optimizer);

std::vector<TensorEntry> EntriesOf(const std::vector<StateTensor>& tensors);

// Where the weights and statistics of a file and of a model differ in name or shape: a sentence each, the
// first dozen. The optimizer's state is left out, since it differs exactly where the weights do.
std::vector<std::string> TensorDifferences(const std::vector<TensorEntry>& file,
                                           const std::vector<TensorEntry>& model);

}  // namespace deeper
