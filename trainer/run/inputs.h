// The inputs of a run, from its config: data sets, the network and the preparation of images.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/weights_file.h"
#include "trainer/models/model.h"
#include "trainer/run/config.h"

namespace deeper {

// Set the image options that the config contains, except statistics: for training, and for evaluation.
void ConfigureTrainingInput(const RunConfig& config, LoaderOptions& options);
void ConfigureEvaluationInput(const RunConfig& config, LoaderOptions& options);

// Collective. Opens a split of `dir`, whose index rank 0 reads for all ranks; or generates data with
// config.synthetic (a tenth as much for evaluation) with `channels`. Errors, the same on all ranks, carry
// ExitCode::kData.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config, const std::string& dir,
                                                     const std::string& split, Communicator& comm,
                                                     int channels = 3);

// The model for this dataset: its channels, and its classes unless num_classes is set.
// InvalidArgument if num_classes is smaller than the dataset's.
absl::StatusOr<Model> ModelFor(const RunConfig& config, const DatasetInfo& data, bool training);

// The pixel statistics the model sees: --mean and --std, or the dataset's, or those of --val_preset=bvlc, in
// the order of the model's channels. InvalidArgument if their number does not match `channels`.
absl::StatusOr<PixelStats> PixelStatsFor(const RunConfig& config, const DatasetInfo& data);

// The description of the network in a checkpoint: `eval`, `predict` and resumed runs rebuild it. "val_preset"
// only if one is set; "elastic", what else the bits depend on, only for elastic runs.
nlohmann::json NetworkJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                           const PixelStats& stats);

// A configuration that leaves the network and its input open, for ReadNetworkJson.
RunConfig OpenNetworkConfig();

// Sets what `config` leaves open: an empty model, a stem and a val_preset that are kNotGiven, and zeros.
// Returns the channels, classes and pixel statistics of the data that the network was trained on.
// What a weights file of another program leaves out, flags must give: FailedPrecondition names them, and says
// what is wrong with a `json` that does not describe a network.
absl::StatusOr<DatasetInfo> ReadNetworkJson(const nlohmann::json& json, RunConfig& config);

// --use_ema.
inline Average AverageOf(const RunConfig& config) {
  return config.use_ema ? Average::kIfAny : Average::kNo;
}

}  // namespace deeper
