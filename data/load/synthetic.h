// Images made up on the spot, in place of packed ones.
#pragma once

#include <cstdint>
#include <memory>

#include "data/load/dataset.h"

namespace deeper {

// Data made up on the spot: sample i is class-dependent low-frequency colour plus noise from the counter RNG,
// so that a model can learn it; needs no files. 50,000 samples unless told otherwise.
struct SyntheticOptions {
  int64_t samples = 50000;
  int channels = 3, height = 256, width = 256;
  int classes = 1000;
  uint64_t seed =
      0;  // of the noise: a class looks the same for every seed, so that two seeds make two splits
};
std::unique_ptr<Dataset> MakeSyntheticDataset(const SyntheticOptions& options);

}  // namespace deeper
