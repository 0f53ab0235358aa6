#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/image/image_codec.h"
#include "data/io/file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/commands/classifier.h"
#include "launch/commands/image_list.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/evaluate.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "predict",
    .summary = "classifies image files",
    .operands = "IMAGE|FOLDER|PATTERN|-...",
    .details =
        R"(Prints the most likely classes of JPEG, PNG and WebP images, with their probabilities. Images may have any
size, in colour or grey. A folder stands for all .jpg, .jpeg, .png and .webp files in it and its sub-folders. A
quoted pattern such as 'photos/*.jpg' stands for the files that match. "-" reads names of images from the
standard input, one per line. Network, class names and normalisation come from the checkpoint. A
message on standard error names each file that cannot be read; the exit code is then 3.)",
    .examples = R"(deeper predict --checkpoint=runs/fashion-mnist shirt.png shoe.jpg
find photos -name '*.jpg' | deeper predict --checkpoint=runs/photos --json --top=1 -)",
};

// Image files as a data set. All labels are 0. A file that cannot be read becomes a black pixel, and is
// listed.
class ImageFiles final : public Dataset {
 public:
  ImageFiles(std::vector<std::string> paths, int channels) : paths_(std::move(paths)) {
    info_.samples = static_cast<int64_t>(paths_.size());
    info_.channels = channels;
    info_.classes = {""};
  }

  const DatasetInfo& info() const override { return info_; }
  int32_t label(int64_t) const override { return 0; }
  std::string Describe(int64_t index) const override { return paths_[static_cast<size_t>(index)]; }

  absl::Status Read(int64_t index, Image* image) const override {
    absl::Status status = Decode(paths_[static_cast<size_t>(index)], image);
    if (status.ok()) return status;
    *image = {1, 1, info_.channels, std::vector<uint8_t>(static_cast<size_t>(info_.channels)), 0, 0};
    const std::scoped_lock lock(mutex_);
    problems_.emplace(index, status.message());
    return absl::OkStatus();
  }

  // Why files could not be read, by index.
  std::map<int64_t, std::string> problems() const {
    const std::scoped_lock lock(mutex_);
    return problems_;
  }

 private:
  absl::Status Decode(const std::string& path, Image* image) const {
    ASSIGN_OR_RETURN(const std::vector<uint8_t> bytes, ReadFile(path));
    absl::Status status = DecodeImage(bytes, info_.channels, image);
    return status.ok() ? status : DataLoss(path, ": ", status.message());
  }

  std::vector<std::string> paths_;
  DatasetInfo info_;
  mutable std::mutex mutex_;
  mutable std::map<int64_t, std::string> problems_;
};

std::vector<float> Softmax(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  std::vector<float> p(logits.size());
  std::transform(logits.begin(), logits.end(), p.begin(), [&](float x) { return std::exp(x - largest); });
  const float sum = std::accumulate(p.begin(), p.end(), 0.0f);
  for (float& value : p) value /= sum;
  return p;
}

struct Prediction {
  size_t index = 0;  // of the class
  std::string name;
  float probability = 0;
};

// The `top` most likely classes, most likely first.
std::vector<Prediction> MostLikely(std::span<const float> logits, const std::vector<std::string>& classes,
                                   size_t top) {
  const std::vector<float> p = Softmax(logits);
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  order.resize(std::min(top, order.size()));
  std::vector<Prediction> predictions;
  for (const size_t i : order)
    predictions.push_back({i, i < classes.size() ? classes[i] : absl::StrCat("class ", i), p[i]});
  return predictions;
}

void PrintText(const std::string& path, const std::vector<Prediction>& predictions) {
  std::printf("%s\n", path.c_str());
  for (const Prediction& each : predictions)
    std::printf("  %6.2f %%  %s\n", 100 * static_cast<double>(each.probability), each.name.c_str());
}

// One line. Names of files that are not UTF-8 get replacement characters.
void PrintLine(const nlohmann::ordered_json& line) {
  using Json = nlohmann::ordered_json;
  std::printf("%s\n", line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
}

void PrintJson(const std::string& path, const std::vector<Prediction>& predictions) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Prediction& each : predictions)
    list.push_back({{"class", each.name}, {"index", each.index}, {"probability", each.probability}});
  PrintLine({{"image", path}, {"predictions", std::move(list)}});
}

class PredictCommand final : public Command {
 public:
  PredictCommand() : Command(kText) { flags_.config.synthetic = true; }  // so that --data may be empty

  std::vector<FlagGroup> Flags() override {
    std::vector<FlagGroup> groups = flags_.Groups();
    groups.push_back(
        {"Results",
         {{"top", &top_, "classes to print per image", Range(1)},
          {"json", &json_, "print a line of JSON per image: image and predictions, or image and error"}}});
    return groups;
  }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.empty()) return InvalidArgument("name at least one image file");
    ASSIGN_OR_RETURN(const std::vector<std::string> images,
                     WithExitCode(ListImages(call.operands), ExitCode::kData));
    ASSIGN_OR_RETURN(Classifier classifier, OpenClassifier(flags_, std::ssize(images), call.comm));
    const auto part = static_cast<size_t>(classifier.net->options().rows * kBatchesAtOnce);
    std::vector<std::string> problems;
    for (size_t first = 0; first < images.size(); first += part) {
      const auto begin = images.begin() + static_cast<ptrdiff_t>(first);
      RETURN_IF_ERROR(Predict({begin, begin + static_cast<ptrdiff_t>(std::min(part, images.size() - first))},
                              classifier, call.comm, problems));
    }
    for (const std::string& problem : problems) std::fprintf(stderr, "deeper predict: %s\n", problem.c_str());
    if (problems.empty()) return absl::OkStatus();
    return WithExitCode(DataLoss(problems.size(), " of ", images.size(), " images could not be read"),
                        ExitCode::kData);
  }

 private:
  static constexpr int64_t kBatchesAtOnce = 64;  // limits the memory of logits

  // Prints the results of some images, and appends why others could not be read.
  absl::Status Predict(const std::vector<std::string>& images, Classifier& classifier, Communicator& comm,
                       std::vector<std::string>& problems) const {
    const auto classes = static_cast<size_t>(classifier.net->model().num_classes);
    const ImageFiles files(images, classifier.input.channels);
    std::vector<float> logits(images.size() * classes);
    const auto keep = [&](const Batch& batch, const float* rows) {
      for (int64_t row = 0; row < batch.rows; ++row)
        std::copy_n(rows + row * static_cast<int64_t>(classes), classes,
                    logits.data() + batch.samples[row] * classes);
    };
    RETURN_IF_ERROR(
        Evaluate(*classifier.net, *classifier.device, files, classifier.input, comm, Tta::kNone, keep)
            .status());
    const std::map<int64_t, std::string> unread = files.problems();
    for (size_t i = 0; i < images.size(); ++i) {
      const auto problem = unread.find(static_cast<int64_t>(i));
      if (problem != unread.end()) {
        problems.push_back(problem->second);
        if (json_) PrintLine({{"image", images[i]}, {"error", problem->second}});
        continue;
      }
      const auto predictions = MostLikely(std::span(logits).subspan(i * classes, classes), classifier.classes,
                                          static_cast<size_t>(top_));
      json_ ? PrintJson(images[i], predictions) : PrintText(images[i], predictions);
    }
    return absl::OkStatus();
  }

  ClassifierFlags flags_;
  int top_ = 5;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakePredict() {
  return std::make_unique<PredictCommand>();
}

}  // namespace deeper
