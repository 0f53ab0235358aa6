// What a model's state is made of, and where in the flat state of a file each tensor lies.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/engine/params.h"

namespace deeper {

enum class TensorRole { kWeight, kMomentum, kStatistic };

const char* NameOf(TensorRole role);

// One tensor in the canonical layout: elements [first, first + count) of the flat state.
struct TensorEntry {
  std::string name;
  std::vector<int64_t> shape;
  TensorRole role = TensorRole::kWeight;
  int64_t first = 0, count = 0;

  friend bool operator==(const TensorEntry&, const TensorEntry&) = default;
  std::string ToString() const;  // "conv1.conv.weight [64, 3, 7, 7]"
};

// The same tensor in memory.
struct StateTensor {
  TensorEntry entry;
  const Param* param = nullptr;
  float* arena = nullptr;
};

// All weights, all momentum if it is wanted, all statistics: the order of the files. Points into `params`.
enum class WithMomentum { kNo, kYes };
std::vector<StateTensor> StateTensors(const ParamStore& params, WithMomentum momentum);

std::vector<TensorEntry> EntriesOf(const std::vector<StateTensor>& tensors);

// Where the weights and statistics of a file and of a model differ in name or shape: a sentence each, the
// first dozen. Momentum is left out, since it differs exactly where the weights do.
std::vector<std::string> TensorDifferences(const std::vector<TensorEntry>& file,
                                           const std::vector<TensorEntry>& model);

}  // namespace deeper
