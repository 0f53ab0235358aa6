// What a checkpoint says of its network, so that `eval`, `predict` and a resumed run can make it again.
#pragma once

#include "absl/status/statusor.h"
#include "data/load/dataset.h"
#include "nlohmann/json.hpp"
#include "trainer/models/model.h"
#include "trainer/run/config.h"

namespace deeper {

// "model", "num_classes", "image_size", "channels", "stem", "aux", "classes", "mean", "std", and "val_preset"
// if there is one. An elastic run adds "elastic", what its bits depend on besides: it goes on with the same
// or not at all.
nlohmann::json NetworkJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                           const PixelStats& stats);

// Fills in what `config` leaves open: an empty model, a stem and a val_preset that are kNotGiven, and zeros.
// Returns what the network knows of the data it was trained on: channels, classes and pixel statistics.
// FailedPrecondition: `json` does not describe a network.
absl::StatusOr<DatasetInfo> ReadNetworkJson(const nlohmann::json& json, RunConfig& config);

}  // namespace deeper
