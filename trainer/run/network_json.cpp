#include "trainer/run/network_json.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

template <class E>
E Known(const std::string& name) {
  if (const auto value = ValueOf<E>(name)) return *value;
  throw std::out_of_range(absl::StrCat("this version knows no \"", name, "\""));
}

}  // namespace

nlohmann::json NetworkJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                           const PixelStats& stats) {
  nlohmann::json json = {{"model", model.name},
                         {"num_classes", model.num_classes},
                         {"image_size", model.image_size},
                         {"channels", model.channels},
                         {"stem", NameOf(config.stem)},
                         {"aux", config.aux},
                         {"classes", data.classes},
                         {"mean", stats.mean},
                         {"std", stats.stddev}};
  if (config.val_preset != Augment::kNone) json["val_preset"] = NameOf(config.val_preset);
  if (IsElastic(config)) json["elastic"] = {{"slices", config.elastic_slices}, {"threads", config.threads}};
  return json;
}

absl::StatusOr<DatasetInfo> ReadNetworkJson(const nlohmann::json& json, RunConfig& config) {
  try {
    if (config.model.empty()) config.model = json.at("model").get<std::string>();
    if (config.stem == kNotGiven<Stem>) config.stem = Known<Stem>(json.at("stem"));
    if (config.val_preset == kNotGiven<Augment>)
      config.val_preset = Known<Augment>(json.value("val_preset", NameOf(Augment::kNone)));
    if (config.num_classes == 0) config.num_classes = json.at("num_classes").get<int64_t>();
    if (config.image_size == 0) config.image_size = json.at("image_size").get<int64_t>();
    DatasetInfo data;
    data.channels = json.at("channels").get<int>();
    data.classes = json.at("classes").get<std::vector<std::string>>();
    data.stats = {json.at("mean").get<std::vector<float>>(), json.at("std").get<std::vector<float>>()};
    return data;
  } catch (const std::exception& error) {
    return FailedPrecondition("its config does not describe a network: ", error.what());
  }
}

}  // namespace deeper
