#include "data/sources/holdout.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/rng.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

class PartSource final : public ImageSource {
 public:
  PartSource(std::unique_ptr<ImageSource> whole, std::vector<int64_t> samples)
      : ImageSource(whole->classes()), whole_(std::move(whole)), samples_(std::move(samples)) {
    for (const std::string& warning : whole_->warnings()) Warn(warning);
    for (const std::string& note : whole_->notes()) Note(note);
  }
  int64_t size() const override { return static_cast<int64_t>(samples_.size()); }
  int channels() const override { return whole_->channels(); }
  std::string Name(int64_t i) const override { return whole_->Name(At(i)); }
  int Label(int64_t i) const override { return whole_->Label(At(i)); }
  absl::StatusOr<SourceSample> Load(int64_t i) const override { return whole_->Load(At(i)); }

 private:
  int64_t At(int64_t i) const { return samples_[static_cast<size_t>(i)]; }

  std::unique_ptr<ImageSource> whole_;
  std::vector<int64_t> samples_;
};

// How many samples of each class are held out: count * holdout / total, where those with the largest
// remainders are rounded up until the sum is right.
std::map<int, int64_t> Shares(const std::map<int, std::vector<int64_t>>& classes, int64_t total,
                              int64_t holdout) {
  std::map<int, int64_t> shares;
  std::vector<std::pair<int64_t, int>> remainders;  // negative, for the order
  for (const auto& [label, samples] : classes) {
    const int64_t product = std::ssize(samples) * holdout;
    shares[label] = product / total;
    remainders.push_back({-(product % total), label});
  }
  std::ranges::sort(remainders);
  int64_t missing = holdout;
  for (const auto& [label, share] : shares) missing -= share;
  for (size_t i = 0; i < static_cast<size_t>(missing); ++i) ++shares[remainders[i].second];
  return shares;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> TakePart(std::unique_ptr<ImageSource> source, SourcePart part,
                                                      int64_t holdout, uint64_t seed) {
  const int64_t total = source->size();
  if (holdout >= total) return InvalidArgument("the split has ", total, " images");
  std::map<int, std::vector<int64_t>> classes;
  for (int64_t i = 0; i < total; ++i) classes[source->Label(i)].push_back(i);
  std::vector<bool> held_out(static_cast<size_t>(total));
  std::vector<int> emptied;
  for (const auto& [label, share] : Shares(classes, total, holdout)) {
    const auto key = [seed](int64_t sample) {
      Rng rng(seed, RandomStream("holdout"), 0, static_cast<uint64_t>(sample));
      return std::pair(rng.Next(), sample);
    };
    std::vector<int64_t>& samples = classes[label];
    if (share == std::ssize(samples)) emptied.push_back(label);
    std::ranges::sort(samples, {}, key);
    for (int64_t i = 0; i < share; ++i) held_out[static_cast<size_t>(samples[static_cast<size_t>(i)])] = true;
  }
  if (!emptied.empty() && part == SourcePart::kRest) {
    source->Warn(absl::StrCat("classes without images, because all of theirs are held out: ", emptied.size(),
                              "; the first is ", source->classes()[static_cast<size_t>(emptied[0])]));
  }
  std::vector<int64_t> taken;
  for (int64_t i = 0; i < total; ++i)
    if (held_out[static_cast<size_t>(i)] == (part == SourcePart::kHoldout)) taken.push_back(i);
  return std::make_unique<PartSource>(std::move(source), std::move(taken));
}

}  // namespace deeper
