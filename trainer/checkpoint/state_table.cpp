#include "trainer/checkpoint/state_table.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/check.h"

namespace deeper {

const char* NameOf(TensorRole role) {
  switch (role) {
    case TensorRole::kWeight:
      return "weight";
    case TensorRole::kMomentum:
      return "momentum";
    case TensorRole::kStatistic:
      return "statistic";
  }
  return "";
}

std::string TensorEntry::ToString() const {
  return absl::StrCat(name, " [", absl::StrJoin(shape, ", "), "]");
}

std::vector<StateTensor> StateTensors(const ParamStore& params, WithMomentum momentum) {
  std::vector<StateTensor> tensors;
  int64_t next = 0;
  const auto append = [&](const std::vector<Param>& table, TensorRole role, float* arena) {
    for (const Param& param : table) {
      const int64_t count = param.spec.elements();
      tensors.push_back({{param.name, param.spec.shape, role, next, count}, &param, arena});
      next += count;
    }
  };
  append(params.trained(), TensorRole::kWeight, params.values());
  if (momentum == WithMomentum::kYes) {
    DEEPER_CHECK(params.momentum() != nullptr, "these parameters are not for training");
    append(params.trained(), TensorRole::kMomentum, params.whole_momentum());
  }
  append(params.statistics(), TensorRole::kStatistic, params.statistic_values());
  return tensors;
}

std::vector<TensorEntry> EntriesOf(const std::vector<StateTensor>& tensors) {
  std::vector<TensorEntry> entries;
  for (const StateTensor& tensor : tensors) entries.push_back(tensor.entry);
  return entries;
}

std::vector<std::string> TensorDifferences(const std::vector<TensorEntry>& file,
                                           const std::vector<TensorEntry>& model) {
  std::map<std::string, std::string> unmatched;  // of the file: name -> name and shape
  for (const TensorEntry& entry : file) {
    if (entry.role != TensorRole::kMomentum) unmatched[entry.name] = entry.ToString();
  }
  std::vector<std::string> differences;
  for (const TensorEntry& entry : model) {
    if (entry.role == TensorRole::kMomentum) continue;
    const auto same_name = unmatched.find(entry.name);
    if (same_name == unmatched.end()) {
      differences.push_back(absl::StrCat(entry.ToString(), " is missing in the file"));
      continue;
    }
    if (same_name->second != entry.ToString()) {
      differences.push_back(
          absl::StrCat(same_name->second, " in the file is ", entry.ToString(), " in the model"));
    }
    unmatched.erase(same_name);
  }
  for (const auto& [name, text] : unmatched)
    differences.push_back(absl::StrCat(text, " is not in the model"));
  constexpr size_t kEnough = 12;
  if (differences.size() > kEnough) {
    differences[kEnough] = absl::StrCat("and ", differences.size() - kEnough, " more");
    differences.resize(kEnough + 1);
  }
  return differences;
}

}  // namespace deeper
