#include "launch/commands/eval_report.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "data/image/image_codec.h"
#include "data/image/resize.h"
#include "data/io/atomic_file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMistakes = 24;
constexpr int kPictureSide = 160, kPictureQuality = 90;

// The stored image, at most kPictureSide pixels wide and high.
absl::StatusOr<std::string> Picture(const Dataset& dataset, int64_t sample) {
  Image image;
  RETURN_IF_ERROR(dataset.Read(sample, &image));
  const int longer = std::max(image.height, image.width);
  if (longer > kPictureSide) {
    const Window whole = {0, 0, static_cast<float>(image.width), static_cast<float>(image.height)};
    const auto scaled = [&](int side) { return std::max(1, side * kPictureSide / longer); };
    image = ResizeWindow(image, whole, Filter::kAntialias, scaled(image.height), scaled(image.width));
  }
  const std::vector<uint8_t> jpeg = EncodeJpeg(image, kPictureQuality);
  return absl::Base64Escape({reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
}

}  // namespace

void Predictions::Add(const Batch& batch, const float* logits, int64_t classes) {
  for (int64_t row = 0; row < batch.rows; ++row) {
    const float* const begin = logits + row * classes;
    const float* const largest = std::max_element(begin, begin + classes);
    double sum = 0;
    for (int64_t c = 0; c < classes; ++c) sum += std::exp(double{begin[c]} - *largest);
    classes_[batch.samples[row]] = largest - begin;
    probabilities_[batch.samples[row]] = 1 / sum;
  }
}

void Predictions::Gather(Communicator& comm) {
  comm.AllReduce(classes_.data(), classes_.size(), CommType::kI64, ReduceOp::kSum, {}).Wait();
  comm.AllReduce(probabilities_.data(), probabilities_.size(), CommType::kF64, ReduceOp::kSum, {}).Wait();
}

absl::Status WriteEvalReport(const std::string& path, Json summary, const Predictions& predictions,
                             const Dataset& dataset, const std::vector<std::string>& classes) {
  std::map<std::pair<int64_t, int64_t>, int64_t> counts;  // by label and predicted class
  std::map<int64_t, int64_t> samples_of;                  // by label
  std::vector<int64_t> wrong;
  for (int64_t sample = 0; sample < dataset.info().samples; ++sample) {
    if (!std::isfinite(predictions.probability(sample))) {
      return WithExitCode(OutOfRange("--report: the network's output for ", dataset.Describe(sample),
                                     " is not finite; check the weights, --mean and --std"),
                          ExitCode::kNotFinite);
    }
    ++counts[{dataset.label(sample), predictions.class_of(sample)}];
    ++samples_of[dataset.label(sample)];
    if (dataset.label(sample) != predictions.class_of(sample)) wrong.push_back(sample);
  }
  summary["classes"] = classes;
  Json& confusion = summary["confusion"] = Json::array();
  for (const auto& [pair, count] : counts) confusion.push_back({pair.first, pair.second, count});
  Json& accuracies = summary["class_accuracy"] = Json::array();
  for (const auto& [label, samples] : samples_of)
    accuracies.push_back({label, samples, static_cast<double>(counts[{label, label}]) / samples});
  std::ranges::stable_sort(wrong, std::greater(),
                           [&](int64_t sample) { return predictions.probability(sample); });
  wrong.resize(std::min(wrong.size(), kMistakes));
  Json& mistakes = summary["mistakes"] = Json::array();
  for (const int64_t sample : wrong) {
    ASSIGN_OR_RETURN(std::string picture, WithExitCode(Picture(dataset, sample), ExitCode::kData));
    mistakes.push_back({{"sample", sample},
                        {"name", dataset.Describe(sample)},
                        {"label", dataset.label(sample)},
                        {"predicted", predictions.class_of(sample)},
                        {"probability", predictions.probability(sample)},
                        {"jpeg", std::move(picture)}});
  }
  return WriteFileAtomically(path, summary.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace deeper
