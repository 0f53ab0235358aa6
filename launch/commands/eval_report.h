// The file of `eval --report`: how often each class is right, what it is taken for, and the most confident
// mistakes. `deeper report` shows it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "nlohmann/json.hpp"

namespace deeper {

// The most likely class of every sample of a split, and its probability.
class Predictions {
 public:
  explicit Predictions(int64_t samples)
      : classes_(static_cast<size_t>(samples)), probabilities_(static_cast<size_t>(samples)) {}

  // logits: [batch.rows, classes].
  void Add(const Batch& batch, const float* logits, int64_t classes);
  // Collective. Afterwards every rank has the predictions of all ranks.
  void Gather(Communicator& comm);

  int64_t class_of(int64_t sample) const { return classes_[static_cast<size_t>(sample)]; }
  // NaN if the logits were not finite.
  double probability(int64_t sample) const { return probabilities_[static_cast<size_t>(sample)]; }

 private:
  std::vector<int64_t> classes_;
  std::vector<double> probabilities_;
};

// Adds to `summary` and writes to `path`: "classes", names by label; "confusion", a row [label, predicted
// class, samples] for every pair that occurs, in order; "class_accuracy", a row [label, samples, top-1] for
// every label that occurs, in order; "mistakes", the wrong predictions with the largest
// probabilities, with a picture of each as JPEG in Base64. `classes`: names of the network's outputs, where
// it has names. OutOfRange with ExitCode::kNotFinite: logits of a sample are not finite. Errors of
// Dataset::Read.
absl::Status WriteEvalReport(const std::string& path, nlohmann::ordered_json summary,
                             const Predictions& predictions, const Dataset& dataset,
                             const std::vector<std::string>& classes);

}  // namespace deeper
