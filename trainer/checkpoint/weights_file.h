// Weights without other training state: `export` writes them; --init_from, eval and predict read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/engine/params.h"
#include "trainer/models/model.h"

namespace deeper {

// All weights and statistics of a network, in the canonical layout.
struct Weights {
  std::string path = {};  // of the file or the step directory
  int64_t step = 0;       // of training; 0 for a file
  // Of the training; "model" and "num_classes" name the network. A file may say only a part, or nothing.
  nlohmann::json config = nlohmann::json::object();
  std::vector<TensorEntry> tensors = {};   // of the first two roles only
  std::vector<float> values = {};          // tensors[i] is elements [first, first + count)
  std::vector<std::string> warnings = {};  // skipped checkpoints
};

// Which weights of a checkpoint to read: the moving averages if it has any, else the last ones; or the last
// ones.
enum class Average { kIfAny, kNo };

// From a checkpoint (a step directory, or the newest valid one of a directory of them), or from an HDF5 file
// of WriteWeights. NotFound, DataLoss, FailedPrecondition (not a weights file).
absl::StatusOr<Weights> ReadWeights(const std::string& path, Average average = Average::kIfAny);

// DataLoss names the first value that is infinite or not a number.
absl::Status CheckFinite(const Weights& weights);

// FailedPrecondition lists the names and shapes that are not those of the model. Auxiliary heads may be
// missing on either side.
absl::Status CheckFits(const Weights& weights, const Model& model);

// One HDF5 dataset for each tensor, float32, under its name; root attributes format, format_version, model,
// num_classes and config. Replaces `path` atomically.
absl::Status WriteWeights(const Weights& weights, const std::string& path);

// Collective: the weights are those that rank 0 has read; the other ranks' are ignored. Nothing changes
// unless everything fits. FailedPrecondition lists the names and shapes that do not. Auxiliary heads may be
// missing: a network without them ignores the file's, and a network with them keeps its initial values. So do
// classifiers of `new_classes` classes (0: none) if the file's differ from them in the number of classes
// only. Returns warnings, on rank 0.
absl::StatusOr<std::vector<std::string>> LoadWeights(const Weights& weights, ParamStore& params,
                                                     Communicator& comm, int64_t new_classes = 0);

}  // namespace deeper
