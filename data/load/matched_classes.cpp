#include "data/load/matched_classes.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Names = std::vector<std::string>;

class Relabelled final : public Dataset {
 public:
  // labels[label of `data`] is the label here.
  Relabelled(std::unique_ptr<Dataset> data, Names classes, std::vector<int32_t> labels)
      : data_(std::move(data)), info_(data_->info()), labels_(std::move(labels)) {
    info_.classes = std::move(classes);
  }

  const DatasetInfo& info() const override { return info_; }
  int32_t label(int64_t index) const override { return labels_[static_cast<size_t>(data_->label(index))]; }
  std::string Describe(int64_t index) const override { return data_->Describe(index); }
  absl::Status Read(int64_t index, Image* image) const override { return data_->Read(index, image); }
  absl::Status ReadPart(int64_t index, ChoosePart choose, Image* image) const override {
    return data_->ReadPart(index, choose, image);
  }
  ImageSize StoredPixels(int64_t index) const override { return data_->StoredPixels(index); }
  absl::Status ReadPixels(int64_t index, uint8_t* pixels) const override {
    return data_->ReadPixels(index, pixels);
  }
  void ReadAhead(Slice samples) const override { data_->ReadAhead(samples); }

 private:
  const std::unique_ptr<Dataset> data_;
  DatasetInfo info_;
  const std::vector<int32_t> labels_;
};

// "3 classes (cat, dog, bird)"; the first few names of many.
std::string Listed(const Names& names) {
  constexpr ptrdiff_t kMost = 8;
  const auto shown = names.begin() + std::min(kMost, std::ssize(names));
  return absl::StrCat(names.size(), names.size() == 1 ? " class (" : " classes (",
                      absl::StrJoin(names.begin(), shown, ", "), shown == names.end() ? ")" : ", ...)");
}

std::vector<bool> HaveSamples(const Dataset& data) {
  std::vector<bool> have(data.info().classes.size());
  for (int64_t i = 0; i < data.info().samples; ++i) have[static_cast<size_t>(data.label(i))] = true;
  return have;
}

// The names in `a` that are not in `b`.
Names Without(Names a, Names b) {
  std::ranges::sort(b);
  std::erase_if(a, [&](const std::string& name) { return std::ranges::binary_search(b, name); });
  return a;
}

}  // namespace

absl::StatusOr<MatchedData> MatchClasses(std::unique_ptr<Dataset> data, const Names& network,
                                         int64_t outputs) {
  const Names classes = data->info().classes;
  if (network.empty()) {
    if (std::ssize(classes) > outputs)
      return FailedPrecondition("the data set has ", classes.size(), " classes, the network only ", outputs);
    return MatchedData{std::move(data),
                       {"the weights do not name their classes: label N of the data set counts as class N of "
                        "the network"}};
  }
  if (classes == network) return MatchedData{std::move(data), {}};

  const std::vector<bool> have = HaveSamples(*data);
  std::vector<int32_t> labels(classes.size(), -1);
  Names unknown, unused, ambiguous;
  bool moved = false;
  for (size_t label = 0; label < classes.size(); ++label) {
    const std::string& name = classes[label];
    const auto found = std::ranges::find(network, name);
    if (found == network.end()) {
      (have[label] ? unknown : unused).push_back(name);
      continue;
    }
    if (std::find(found + 1, network.end(), name) != network.end()) ambiguous.push_back(name);
    labels[label] = static_cast<int32_t>(found - network.begin());
    moved = moved || labels[label] != static_cast<int32_t>(label);
  }
  const Names missing = Without(network, classes);
  if (!unknown.empty()) {
    return FailedPrecondition("the network does not know ", Listed(unknown), " of the data set",
                              missing.empty() ? "" : absl::StrCat(" and knows ", Listed(missing), " more"),
                              "; classes are matched by name: pack the data with the names that the "
                              "network was trained on");
  }
  if (!ambiguous.empty()) {
    return FailedPrecondition("the network has more than one class of the same name for ", Listed(ambiguous),
                              " of the data set, so they cannot be matched by name");
  }
  MatchedData matched;
  if (moved)
    matched.notes.emplace_back(
        "the data set numbers its classes differently: matched by name to the network's");
  if (!missing.empty())
    matched.notes.push_back(absl::StrCat("the data set lacks ", Listed(missing), " of the network"));
  if (!unused.empty()) {
    matched.notes.push_back(absl::StrCat("the network does not know ", Listed(unused),
                                         " of the data set, which has no samples of them"));
  }
  matched.data = std::make_unique<Relabelled>(std::move(data), network, std::move(labels));
  return matched;
}

}  // namespace deeper
