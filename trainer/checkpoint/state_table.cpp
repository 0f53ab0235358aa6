#include "trainer/checkpoint/state_table.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/check.h"

namespace deeper {

std::string TensorEntry::ToString() const {
  return absl::StrCat(name, " [", absl::StrJoin(shape, ", "), "]");
}

std::vector<StateTensor> StateTensors(const ParamStore& params, WithOptimizer optimizer) {
  std::vector<StateTensor> tensors;
  int64_t next = 0;
  const auto append = [&](const std::vector<Param>& table, const std::string& role, float* arena) {
    for (const Param& param : table) {
      const int64_t count = param.spec.elements();
      tensors.push_back({{param.name, param.spec.shape, role, next, count}, &param, arena});
      next += count;
    }
  };
  append(params.trained(), kWeightRole, params.values());
  if (optimizer == WithOptimizer::kYes) {
    DEEPER_CHECK(params.grads() != nullptr, "these parameters are not for training");
    for (size_t i = 0; i < params.state_names().size(); ++i)
      append(params.trained(), params.state_names()[i], params.state(i));
  }
  append(params.statistics(), kStatisticRole, params.statistic_values());
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
    if (!entry.is_optimizer_state()) unmatched[entry.name] = entry.ToString();
  }
  std::vector<std::string> differences;
  for (const TensorEntry& entry : model) {
    if (entry.is_optimizer_state()) continue;
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
