#include "trainer/run/inputs.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/agree.h"
#include "data/load/synthetic.h"
#include "data/shards/read_shards.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

template <class E>
E Known(const std::string& name) {
  if (const auto value = ValueOf<E>(name)) return *value;
  throw std::out_of_range(absl::StrCat("this version does not know \"", name, "\""));
}

}  // namespace

void ConfigureEvaluationInput(const RunConfig& config, LoaderOptions& options) {
  options.augment = config.val_preset;
  options.bgr = options.augment == Augment::kBvlc;
  options.workers = config.workers;
}

void ConfigureTrainingInput(const RunConfig& config, LoaderOptions& options) {
  ConfigureEvaluationInput(config, options);
  options.augment = config.augment;
  options.flip = config.flip;
  constexpr double kHowards = 0.5;
  options.color_jitter = config.color_jitter >= 0                 ? config.color_jitter
                         : options.augment == Augment::kInception ? kHowards
                                                                  : 0;
  options.pca_noise = config.pca_noise;
  options.trivial_augment = config.trivial_augment;
  options.random_erasing = config.random_erasing;
  options.mixup = config.mixup;
  options.cutmix = config.cutmix;
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config, const std::string& dir,
                                                     const std::string& split, Communicator& comm,
                                                     int channels) {
  if (!config.synthetic) {
    absl::StatusOr<std::string> index = std::string();
    if (comm.rank() == 0) index = ReadSplitIndex(dir, split);
    RETURN_IF_ERROR(Agree(comm, WithExitCode(index.status(), ExitCode::kData)));
    Broadcast(comm, 0, &*index);
    const auto report = [rank = comm.rank()](const std::string& message) {
      std::fprintf(stderr, "deeper: rank %d: %s\n", rank, message.c_str());
    };
    ReadOptions options = {.stage = {config.stage_dir, report}, .direct_io = config.direct_io};
    if (comm.local_rank() == 0) options.report = report;  // an outage is one of the whole machine
    absl::StatusOr<std::unique_ptr<Dataset>> shards = OpenSplit(dir, *std::move(index), options);
    RETURN_IF_ERROR(Agree(comm, WithExitCode(shards.status(), ExitCode::kData)));
    return shards;
  }
  SyntheticOptions options;
  options.channels = channels;
  const bool training = split == config.train_split;
  options.samples = training ? config.synthetic_samples : std::max<int64_t>(1, config.synthetic_samples / 10);
  if (config.num_classes > 0) options.classes = static_cast<int>(config.num_classes);
  if (config.image_size > 0) options.height = options.width = static_cast<int>(config.image_size);
  options.seed = config.seed + (training ? 0 : 1);
  return MakeSyntheticDataset(options);
}

absl::StatusOr<Model> ModelFor(const RunConfig& config, const DatasetInfo& data, bool training) {
  const auto classes = static_cast<int64_t>(data.classes.size());
  if (config.num_classes != 0 && config.num_classes < classes) {
    return InvalidArgument("--num_classes=", config.num_classes, ": the dataset has ", classes, " classes");
  }
  return MakeModel(config.model, {.num_classes = config.num_classes != 0 ? config.num_classes : classes,
                                  .channels = data.channels,
                                  .image_size = config.image_size,
                                  .stem = config.stem,
                                  .aux = config.aux && training,
                                  .aux_weight = static_cast<float>(config.aux_weight),
                                  .dropout = config.dropout && training,
                                  .blur_pool = config.blur_pool,
                                  .dropout_rate = static_cast<float>(config.dropout_rate)});
}

absl::StatusOr<PixelStats> PixelStatsFor(const RunConfig& config, const DatasetInfo& data) {
  PixelStats stats = data.stats;
  if (config.val_preset == Augment::kBvlc) {  // Caffe's: values up to 255, minus a mean
    if (data.channels != 3)
      return InvalidArgument("--val_preset=bvlc needs colour images, and these are grey");
    stats = {{104 / 255.0f, 117 / 255.0f, 123 / 255.0f}, std::vector<float>(3, 1 / 255.0f)};
  }
  const auto override_with = [&](const char* flag, const std::string& text,
                                 std::vector<float>& values) -> absl::Status {
    if (text.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(values, ParseNumbers(flag, text));
    if (values.size() == static_cast<size_t>(data.channels)) return absl::OkStatus();
    return InvalidArgument("--", flag, "=", text, ": the images have ", data.channels, " channel(s)");
  };
  RETURN_IF_ERROR(override_with("mean", config.mean, stats.mean));
  RETURN_IF_ERROR(override_with("std", config.stddev, stats.stddev));
  if (std::any_of(stats.stddev.begin(), stats.stddev.end(), [](float s) { return !(s > 0); })) {
    return InvalidArgument("--std: every channel's standard deviation must be positive");
  }
  return stats;
}

nlohmann::json NetworkJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                           const PixelStats& stats) {
  nlohmann::json json = {{"model", model.name},
                         {"num_classes", model.num_classes},
                         {"image_size", model.image_size},
                         {"channels", model.channels},
                         {"stem", NameOf(config.stem)},
                         {"aux", config.aux},
                         {"blur_pool", config.blur_pool},
                         {"classes", data.classes},
                         {"mean", stats.mean},
                         {"std", stats.stddev}};
  if (config.val_preset != Augment::kNone) json["val_preset"] = NameOf(config.val_preset);
  if (IsElastic(config)) json["elastic"] = {{"slices", config.elastic_slices}, {"threads", config.threads}};
  return json;
}

RunConfig OpenNetworkConfig() {
  RunConfig config;
  config.model.clear();
  config.stem = kNotGiven<Stem>;
  config.val_preset = kNotGiven<Augment>;
  return config;
}

absl::StatusOr<DatasetInfo> ReadNetworkJson(const nlohmann::json& json, RunConfig& config) {
  std::vector<std::string> missing;
  const auto read = [&](const char* name, bool given, auto* value) {
    if (given) return;
    if (json.contains(name))
      json.at(name).get_to(*value);
    else
      missing.push_back(absl::StrCat("--", name));
  };
  try {
    if (config.stem == kNotGiven<Stem>)
      config.stem = Known<Stem>(json.value("stem", NameOf(RunConfig().stem)));
    if (config.val_preset == kNotGiven<Augment>)
      config.val_preset = Known<Augment>(json.value("val_preset", NameOf(Augment::kNone)));
    config.blur_pool = config.blur_pool || json.value("blur_pool", false);
    read("model", !config.model.empty(), &config.model);
    read("num_classes", config.num_classes != 0, &config.num_classes);
    if (config.image_size == 0) config.image_size = json.value("image_size", int64_t{0});
    DatasetInfo data;
    const bool bvlc = config.val_preset == Augment::kBvlc;  // has statistics of its own
    data.classes = json.value("classes", data.classes);
    read("mean", bvlc || !config.mean.empty(), &data.stats.mean);
    read("std", bvlc || !config.stddev.empty(), &data.stats.stddev);
    const auto mean = ParseNumbers("mean", config.mean);  // Validate() reports what is wrong with it
    const size_t channels = bvlc ? 3 : mean.ok() ? std::max(mean->size(), data.stats.mean.size()) : 0;
    data.channels = json.value("channels", static_cast<int>(channels));
    if (missing.empty()) return data;
    return FailedPrecondition("it does not say everything about its network: pass ",
                              absl::StrJoin(missing, ", "));
  } catch (const std::exception& error) {
    return FailedPrecondition("its config does not describe a network: ", error.what());
  }
}

}  // namespace deeper
