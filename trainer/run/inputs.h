// What a run works on, as its config says: data sets, the network, and how images are prepared for it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "trainer/models/model.h"
#include "trainer/run/config.h"

namespace deeper {

// What the config says of images besides their statistics: for training, and to evaluate.
void ConfigureTrainingInput(const RunConfig& config, LoaderOptions& options);
void ConfigureEvaluationInput(const RunConfig& config, LoaderOptions& options);

// Collective. Opens split `split` of `dir`, whose index rank 0 reads and sends to the others; or makes up
// data where the config says synthetic (a tenth as much to evaluate on). Errors, the same on all ranks, carry
// ExitCode::kData.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config, const std::string& dir,
                                                     const std::string& split, Communicator& comm);

// The model for this dataset: its channels, and its classes unless num_classes says otherwise.
// InvalidArgument if num_classes is smaller than the dataset's.
absl::StatusOr<Model> ModelFor(const RunConfig& config, const DatasetInfo& data, bool training);

// The pixel statistics the model sees: --mean and --std, or the dataset's, or those of --val_preset=bvlc, in
// the order of the model's channels. InvalidArgument if their number does not match `channels`.
absl::StatusOr<PixelStats> PixelStatsFor(const RunConfig& config, const DatasetInfo& data);

}  // namespace deeper
