// A data set under the labels of a network that was trained on another data set: classes are matched by name.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/load/dataset.h"

namespace deeper {

struct MatchedData {
  std::unique_ptr<Dataset> data;
  std::vector<std::string> notes;  // for the user: one for each way in which the classes differ
};

// `network`: the names of the network's `outputs` classes, by label. The names may be fewer, or none at all:
// labels are then kept. FailedPrecondition: a class with samples is not one of the network's, or the network
// has two classes of its name, or without names, a label is not below `outputs`.
absl::StatusOr<MatchedData> MatchClasses(std::unique_ptr<Dataset> data,
                                         const std::vector<std::string>& network, int64_t outputs);

}  // namespace deeper
