// Choosing a checkpoint and resuming from it (checkpoint_saver.h saves them). Collective: rank 0 decides,
// each rank reads its part of the files, and all have the whole state in the end, or none of it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/engine/params.h"

namespace deeper {

// ChooseCheckpointIn, decided by rank 0 for all. Only rank 0 gets the warnings.
absl::StatusOr<CheckpointChoice> ChooseCheckpoint(const std::string& directory, const std::string& resume,
                                                  Communicator& comm);

// kForced: differences that spoil no more than the comparison with the run as it was are warned of, not
// refused: image_size, mean, std, names of classes and what elastic bits rest on; and the seed and the order
// of samples where the checkpoint is of the end of an epoch. In mid-epoch these two would repeat and miss
// samples; another dataset or global_batch would make steps and epochs mean something else.
enum class Match { kExact, kForced };

struct LoadedState : TrainState {
  std::vector<std::string> warnings;  // a forced difference each
};

// Loads a step directory that any number of ranks wrote. Nothing in `params` changes unless, on every rank,
// everything was read and every checksum holds: it is read into memory of its own, which then takes the place
// of that of `params` (ParamStore::Swap), to which nothing may be bound yet. FailedPrecondition lists what
// differs: tensors of the model; dataset, seed, batch and order of expected.data; the fields of
// expected.config, all of which must be as they were saved.
absl::StatusOr<LoadedState> LoadCheckpoint(const std::string& path, const TrainState& expected, Match match,
                                           ParamStore& params, Communicator& comm);

}  // namespace deeper
