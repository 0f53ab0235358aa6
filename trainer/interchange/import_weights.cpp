#include "trainer/interchange/import_weights.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "kernels/base/status.h"
#include "trainer/interchange/caffe_model.h"
#include "trainer/interchange/safetensors.h"
#include "trainer/interchange/torch_file.h"

namespace deeper {
namespace {

enum class Source { kOwn, kSafetensors, kTorch, kCaffe };

constexpr size_t kSniffed = 16;

absl::StatusOr<Source> Recognize(const std::string& path) {
  std::error_code unknown;  // opening it reports the error
  if (std::filesystem::is_directory(path, unknown)) return Source::kOwn;
  ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(const uint64_t size, file.Size());
  std::vector<uint8_t> first(std::min<uint64_t>(size, kSniffed));
  RETURN_IF_ERROR(file.ReadAt(0, first.data(), first.size()));
  constexpr std::array<uint8_t, 4> kHdf5 = {0x89, 'H', 'D', 'F'};
  if (first.size() >= kHdf5.size() && std::equal(kHdf5.begin(), kHdf5.end(), first.begin()))
    return Source::kOwn;
  if (IsTorchFile(first)) return Source::kTorch;
  if (first.size() > 8 && first[8] == '{' && first[7] == 0 && first[6] == 0) return Source::kSafetensors;
  if (MayBeCaffeModel(first)) return Source::kCaffe;
  return FailedPrecondition(
      path,
      " is in no known format of weights: give a checkpoint, an HDF5 or safetensors file, "
      "a file of torch.save(model.state_dict()), or a .caffemodel");
}

const TensorEntry* Find(const Weights& weights, const char* name) {
  const auto found = std::ranges::find(weights.tensors, name, &TensorEntry::name);
  return found == weights.tensors.end() ? nullptr : &*found;
}

// Sets what the names and shapes of a GoogLeNet tell.
void DescribeNetwork(Weights& weights) {
  const TensorEntry* stem = Find(weights, "conv1.conv.weight");
  const TensorEntry* branch = Find(weights, "inception5b.branch3.1.conv.weight");
  const TensorEntry* classifier = Find(weights, "fc.bias");
  if (weights.config.contains("model") || stem == nullptr || stem->shape.size() != 4 || branch == nullptr ||
      branch->shape.size() != 4 || classifier == nullptr || classifier->shape.size() != 1) {
    return;
  }
  const bool norm = Find(weights, "conv1.bn.weight") != nullptr, torchvision = norm && branch->shape[3] == 3;
  weights.config["model"] = torchvision ? "googlenet-torchvision" : norm ? "googlenet-bn" : "googlenet";
  weights.config["num_classes"] = classifier->shape[0];
  weights.config["channels"] = stem->shape[1];
  std::string message =
      absl::StrCat(weights.path, " does not say its network: ", weights.config["model"].get<std::string>(),
                   " has the same tensors");
  if (torchvision && stem->shape[1] == 3) {
    // torchvision's published weights have transform_input=True, which makes this of its normalised images.
    weights.config["mean"] = weights.config["std"] = {0.5, 0.5, 0.5};
    weights.config["val_preset"] = "torchvision";
    message +=
        "; mean and std are 0.5 and val_preset is torchvision, as for torchvision's published weights. For "
        "weights that were trained with another normalisation, pass --mean, --std and --val_preset";
  }
  weights.warnings.push_back(std::move(message));
}

// What the writers of files take from the description of the network.
absl::Status CheckConfig(const Weights& weights) {
  const nlohmann::json& config = weights.config;
  const bool good = config.is_object() && (!config.contains("model") || config["model"].is_string()) &&
                    (!config.contains("num_classes") || config["num_classes"].is_number_integer());
  if (good) return absl::OkStatus();
  return FailedPrecondition(
      weights.path, ": its config is not that of a network of deeper: ", config.dump().substr(0, 200));
}

}  // namespace

absl::StatusOr<Weights> ImportWeights(const std::string& path, Average average) {
  ASSIGN_OR_RETURN(const Source source, Recognize(path));
  if (source == Source::kOwn) {
    ASSIGN_OR_RETURN(Weights own, ReadWeights(path, average));
    RETURN_IF_ERROR(CheckConfig(own));
    return own;
  }
  ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path));
  auto* const parse = source == Source::kTorch         ? ParseTorchFile
                      : source == Source::kSafetensors ? ParseSafetensors
                                                       : ParseCaffeModel;
  ASSIGN_OR_RETURN(Weights weights, parse(bytes, path));
  if (weights.tensors.empty()) return FailedPrecondition(path, " has no floating-point tensors");
  RETURN_IF_ERROR(CheckFinite(weights));
  RETURN_IF_ERROR(CheckConfig(weights));
  DescribeNetwork(weights);
  return weights;
}

}  // namespace deeper
