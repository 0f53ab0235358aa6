// Saving and resuming training. Collective: every rank holds the whole state, and each writes and reads its
// part of the files. Momentum that is sharded over the ranks is gathered first, in the memory of the
// gradients; the files do not tell.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint_directory.h"
#include "trainer/checkpoint_manifest.h"
#include "trainer/params.h"

namespace deeper {

struct TrainState {
  int64_t step = 0;  // steps done
  DataState data;
  nlohmann::json config;  // an object; "model" and "num_classes" name the network
};

// Saves the state as DIR/step-N. When it returns OK, the checkpoint is on disk and whole; then only the
// `keep` newest stay (0: all). On a failure of any rank every rank gets its status, and the directory is as
// it was. `params` is one for training; its slice of the momentum is that of comm's rank.
absl::Status SaveCheckpoint(const std::string& directory, const TrainState& state, const ParamStore& params,
                            Communicator& comm, int keep);

// ChooseCheckpointIn, decided by rank 0 for all. Only rank 0 gets the warnings.
absl::StatusOr<CheckpointChoice> ChooseCheckpoint(const std::string& directory, const std::string& resume,
                                                  Communicator& comm);

// Loads a step directory that any number of ranks wrote. Nothing in `params` changes unless, on every rank,
// everything was read and every checksum holds. FailedPrecondition lists what differs: tensors of the model;
// dataset, seed, batch and order of expected.data; the fields of expected.config, all of which must be as
// they were saved.
absl::StatusOr<TrainState> LoadCheckpoint(const std::string& path, const TrainState& expected,
                                          ParamStore& params, Communicator& comm);

}  // namespace deeper
