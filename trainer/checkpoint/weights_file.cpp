#include "trainer/checkpoint/weights_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "data/io/file.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/status.h"
#include "trainer/checkpoint/checkpoint_directory.h"

namespace deeper {
namespace {

constexpr char kFormat[] = "deeper-weights";
constexpr int64_t kVersion = 1;

absl::StatusOr<Weights> ReadCheckpointWeights(const std::string& path, Average average) {
  ASSIGN_OR_RETURN(FoundCheckpoint found, FindAndReadCheckpoint(path));
  Checkpoint& checkpoint = found.checkpoint;
  Weights weights{.path = found.path,
                  .step = checkpoint.manifest.step,
                  .config = checkpoint.manifest.config,
                  .warnings = std::move(found.warnings)};
  std::vector<TensorEntry>& tensors = checkpoint.manifest.tensors;
  const bool averaged = average == Average::kIfAny &&
                        std::ranges::find(tensors, kAverageRole, &TensorEntry::role) != tensors.end();
  for (TensorEntry& tensor : tensors) {
    if (averaged) {
      if (tensor.role != kAverageRole && tensor.role != kStatisticAverageRole) continue;
      tensor.role = tensor.role == kAverageRole ? kWeightRole : kStatisticRole;
    }
    if (tensor.is_optimizer_state()) continue;
    const auto from = checkpoint.state.begin() + tensor.first;
    tensor.first = static_cast<int64_t>(weights.values.size());
    weights.values.insert(weights.values.end(), from, from + tensor.count);
    weights.tensors.push_back(std::move(tensor));
  }
  return weights;
}

// The attribute, or `missing` if the file has none of this name.
template <class T>
absl::StatusOr<T> AttributeOr(const Hdf5File& file, const std::string& name, T missing) {
  absl::Status status = file.ReadAttribute(name, &missing);
  if (!status.ok() && !absl::IsNotFound(status)) return status;
  return missing;
}

// Files of other programs need not say what they are; one that says that it is something else is refused.
absl::Status CheckFormat(const Hdf5File& file, const std::string& path) {
  const absl::StatusOr<std::string> format = AttributeOr(file, "format", std::string(kFormat));
  if (!format.ok() || *format != kFormat)
    return FailedPrecondition(path, " is not a weights file: its attribute format is not ", kFormat);
  ASSIGN_OR_RETURN(const int64_t version, AttributeOr(file, "format_version", kVersion));
  if (version == kVersion) return absl::OkStatus();
  return Unimplemented(path, " has weights format version ", version, "; this build reads version ",
                       kVersion);
}

absl::StatusOr<nlohmann::json> ReadConfig(const Hdf5File& file, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, AttributeOr(file, "config", std::string("{}")));
  nlohmann::json config = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return DataLoss("the attribute config of ", path, " is not a JSON object");
  ASSIGN_OR_RETURN(const std::string model, AttributeOr(file, "model", std::string()));
  ASSIGN_OR_RETURN(const int64_t classes, AttributeOr(file, "num_classes", int64_t{0}));
  if (!config.contains("model") && !model.empty()) config["model"] = model;
  if (!config.contains("num_classes") && classes > 0) config["num_classes"] = classes;
  return config;
}

absl::Status AppendTensor(const Hdf5File& file, const std::string& name, Weights& weights) {
  ASSIGN_OR_RETURN(const Hdf5Extent extent, file.Locate(name, Hdf5Type::kF32));
  std::vector<float> values;
  RETURN_IF_ERROR(file.Read(name, &values));
  weights.tensors.push_back({name,
                             {extent.shape.begin(), extent.shape.end()},
                             kWeightRole,
                             static_cast<int64_t>(weights.values.size()),
                             static_cast<int64_t>(values.size())});
  weights.values.insert(weights.values.end(), values.begin(), values.end());
  return absl::OkStatus();
}

absl::StatusOr<Weights> ReadWeightsFile(const std::string& path) {
  ASSIGN_OR_RETURN(const Hdf5File file, Hdf5File::Open(path));
  RETURN_IF_ERROR(CheckFormat(file, path));
  Weights weights{.path = path};
  ASSIGN_OR_RETURN(weights.config, ReadConfig(file, path));
  for (const std::string& name : file.Names()) {
    const absl::Status read = AppendTensor(file, name, weights);
    if (!read.ok()) {
      return FailedPrecondition(
          path, " is not a weights file, which has only contiguous float32 data sets: ", read.message());
    }
  }
  if (weights.tensors.empty()) return FailedPrecondition(path, " is not a weights file: it has no data sets");
  return weights;
}

absl::Status WriteAndSync(const Weights& weights, const std::string& path) {
  ASSIGN_OR_RETURN(Hdf5File file, Hdf5File::Create(path));
  file.SetAttribute("format", kFormat);
  file.SetAttribute("format_version", kVersion);
  file.SetAttribute("model", weights.config.value("model", ""));
  file.SetAttribute("num_classes", weights.config.value("num_classes", int64_t{0}));
  file.SetAttribute("config", weights.config.dump());
  for (const TensorEntry& tensor : weights.tensors) {
    file.Write(tensor.name, {tensor.shape.begin(), tensor.shape.end()}, weights.values.data() + tensor.first);
  }
  RETURN_IF_ERROR(file.Close());
  const absl::StatusOr<File> written = File::Open(path, O_RDWR);
  return written.ok() ? written->Sync() : written.status();
}

// `entries` without the auxiliary tensors that `others` lacks.
std::vector<TensorEntry> WithoutSpareHeads(std::vector<TensorEntry> entries,
                                           const std::vector<TensorEntry>& others) {
  std::erase_if(entries, [&](const TensorEntry& entry) {
    return entry.name.starts_with("aux") &&
           std::ranges::find(others, entry.name, &TensorEntry::name) == others.end();
  });
  return entries;
}

absl::Status SameTensors(const std::string& path, const std::vector<TensorEntry>& file,
                         const std::vector<TensorEntry>& model) {
  const std::vector<std::string> differences = TensorDifferences(file, model);
  if (differences.empty()) return absl::OkStatus();
  return FailedPrecondition("the weights of ", path,
                            " do not fit the model: ", absl::StrJoin(differences, "; "));
}

// Whether a tensor of the model belongs to a classifier of `classes` classes, and the file's of that name to
// one of another number.
bool IsOtherClassifier(const TensorEntry& model, const TensorEntry& file, int64_t classes) {
  return model.name == file.name && !model.shape.empty() && model.shape[0] == classes &&
         file.shape.size() == model.shape.size() && file.shape[0] != classes &&
         std::equal(model.shape.begin() + 1, model.shape.end(), file.shape.begin() + 1);
}

// Removes classifiers of another number of classes than the model's from `tensors`. Returns what it removed.
std::vector<TensorEntry> RemoveOtherClassifiers(std::vector<TensorEntry>& tensors,
                                                const std::vector<TensorEntry>& model, int64_t classes) {
  std::vector<TensorEntry> removed;
  std::erase_if(tensors, [&](const TensorEntry& tensor) {
    const bool other = std::ranges::any_of(
        model, [&](const TensorEntry& entry) { return IsOtherClassifier(entry, tensor, classes); });
    if (other) removed.push_back(tensor);
    return other;
  });
  return removed;
}

// The values of the model's tensors, back to back: from the file, or from `params` if the file lacks them.
absl::StatusOr<std::vector<float>> Fit(const Weights& weights, const ParamStore& params,
                                       const std::vector<StateTensor>& tensors, int64_t new_classes,
                                       std::vector<std::string>& warnings) {
  warnings = weights.warnings;
  const std::vector<TensorEntry> model = EntriesOf(tensors);
  std::vector<TensorEntry> file = weights.tensors;
  const std::vector<TensorEntry> anew = RemoveOtherClassifiers(file, model, new_classes);
  std::vector<TensorEntry> wanted = WithoutSpareHeads(model, weights.tensors);
  const bool lacks_heads = wanted.size() < model.size();
  std::erase_if(wanted, [&](const TensorEntry& entry) {
    return std::ranges::find(anew, entry.name, &TensorEntry::name) != anew.end();
  });
  RETURN_IF_ERROR(SameTensors(weights.path, WithoutSpareHeads(file, model), wanted));
  if (lacks_heads) {
    warnings.push_back(
        absl::StrCat(weights.path, " has no auxiliary heads: they keep their initial weights"));
  }
  if (!anew.empty()) {
    const auto name = [](std::string* out, const TensorEntry& entry) { out->append(entry.name); };
    warnings.push_back(absl::StrCat(weights.path, " has ", anew[0].shape[0], " classes, not ", new_classes,
                                    ": the classifiers start anew: ", absl::StrJoin(anew, ", ", name)));
  }
  std::vector<float> values(static_cast<size_t>(model.back().end()));
  for (const auto& [entry, param, arena] : tensors) {
    const auto found = std::ranges::find(file, entry.name, &TensorEntry::name);
    if (found == file.end()) {
      params.Read(*param, arena, values.data() + entry.first);
    } else {
      std::copy_n(weights.values.begin() + found->first, entry.count, values.begin() + entry.first);
    }
  }
  return values;
}

}  // namespace

absl::StatusOr<Weights> ReadWeights(const std::string& path, Average average) {
  std::error_code unknown;  // opening it reports the error
  const bool directory = std::filesystem::is_directory(path, unknown);
  ASSIGN_OR_RETURN(Weights weights, directory ? ReadCheckpointWeights(path, average) : ReadWeightsFile(path));
  RETURN_IF_ERROR(CheckFinite(weights));
  return weights;
}

absl::Status CheckFinite(const Weights& weights) {
  for (const TensorEntry& tensor : weights.tensors) {
    const auto first = weights.values.begin() + tensor.first, end = first + tensor.count;
    const auto bad = std::find_if(first, end, [](float value) { return !std::isfinite(value); });
    if (bad != end) {
      return DataLoss(weights.path, ": ", tensor.name, " is not finite: its value ", bad - first, " is ",
                      *bad, "; use weights from before the training diverged, or export them again");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFits(const Weights& weights, const Model& model) {
  ASSIGN_OR_RETURN(const std::vector<NodeShape> shapes, InferShapes(model, 1));
  std::vector<TensorEntry> entries;
  for (size_t i = 0; i < shapes.size(); ++i) {
    for (const ParamSpec& spec : shapes[i].op.params)
      entries.push_back({.name = absl::StrCat(model.nodes[i].name, ".", spec.name), .shape = spec.shape});
  }
  return SameTensors(weights.path, WithoutSpareHeads(weights.tensors, entries),
                     WithoutSpareHeads(entries, weights.tensors));
}

absl::Status WriteWeights(const Weights& weights, const std::string& path) {
  const std::string temporary = path + kTemporarySuffix;
  absl::Status status = WriteAndSync(weights, temporary);
  if (status.ok()) status = RenameDurably(temporary, path);
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

absl::StatusOr<std::vector<std::string>> LoadWeights(const Weights& weights, ParamStore& params,
                                                     Communicator& comm, int64_t new_classes) {
  const std::vector<StateTensor> tensors = StateTensors(params, WithOptimizer::kNo);
  std::vector<std::string> warnings;
  absl::StatusOr<std::vector<float>> values =
      std::vector<float>(static_cast<size_t>(tensors.back().entry.end()));
  if (comm.rank() == 0) values = Fit(weights, params, tensors, new_classes, warnings);
  RETURN_IF_ERROR(Agree(comm, values.status()));
  comm.Broadcast(values->data(), values->size() * sizeof(float), 0, {}).Wait();
  for (const auto& [entry, param, arena] : tensors) params.Write(*param, values->data() + entry.first, arena);
  return warnings;
}

}  // namespace deeper
