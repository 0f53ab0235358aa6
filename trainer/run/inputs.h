// What a run works on, as its config says: data sets, the network, and how images are prepared for it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "nlohmann/json.hpp"
#include "trainer/models/model.h"
#include "trainer/run/config.h"

namespace deeper {

// What the config says of images besides their statistics: for training, and to evaluate.
void ConfigureTrainingInput(const RunConfig& config, LoaderOptions& options);
void ConfigureEvaluationInput(const RunConfig& config, LoaderOptions& options);

// Collective. Opens a split of `dir`, whose index rank 0 reads for all; or makes up data with
// config.synthetic (a tenth as much to evaluate on). Errors, the same on all ranks, carry ExitCode::kData.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config, const std::string& dir,
                                                     const std::string& split, Communicator& comm);

// The model for this dataset: its channels, and its classes unless num_classes says otherwise.
// InvalidArgument if num_classes is smaller than the dataset's.
absl::StatusOr<Model> ModelFor(const RunConfig& config, const DatasetInfo& data, bool training);

// The pixel statistics the model sees: --mean and --std, or the dataset's, or those of --val_preset=bvlc, in
// the order of the model's channels. InvalidArgument if their number does not match `channels`.
absl::StatusOr<PixelStats> PixelStatsFor(const RunConfig& config, const DatasetInfo& data);

// What a checkpoint says of its network, so that `eval`, `predict` and a resumed run can make it again.
// "val_preset" only if there is one; of an elastic run "elastic", what its bits depend on besides.
nlohmann::json NetworkJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                           const PixelStats& stats);

// Fills in what `config` leaves open: an empty model, a stem and a val_preset that are kNotGiven, and zeros.
// Returns what the network knows of the data it was trained on: channels, classes and pixel statistics.
// FailedPrecondition: `json` does not describe a network.
absl::StatusOr<DatasetInfo> ReadNetworkJson(const nlohmann::json& json, RunConfig& config);

}  // namespace deeper
