// Generated images, for use without a packed data set.
#pragma once

#include <cstdint>
#include <memory>

#include "data/load/dataset.h"

namespace deeper {

// Generated data without files: sample i is a class-dependent low-frequency colour pattern plus noise from
// the counter-based generator, so a model can learn it. 50,000 samples by default.
struct SyntheticOptions {
  int64_t samples = 50000;
  int channels = 3, height = 256, width = 256;
  int classes = 1000;
  uint64_t seed = 0;  // of the noise; classes look the same for every seed, so two seeds make two splits
};
std::unique_ptr<Dataset> MakeSyntheticDataset(const SyntheticOptions& options);

}  // namespace deeper
