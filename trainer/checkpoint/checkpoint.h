// Chooses a checkpoint and resumes from it (checkpoint_saver.h saves them). Collective: rank 0 decides, each
// rank reads its part of the files, and all ranks get the whole state, or none of them does.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/engine/params.h"

namespace deeper {

// Collective. Runs `work` on rank 0. All ranks read their part of the step directories that it verifies, so
// that no rank reads a whole one. Ranks call `meet`, if there is one, before they communicate: it returns
// when all of them have called it, and need not poll for that.
void VerifyTogether(Communicator& comm, const std::function<void(const CheckpointVerifier& verify)>& work,
                    const std::function<void()>& meet = nullptr);

// ChooseCheckpointIn on rank 0, for all ranks. Only rank 0 gets the warnings.
absl::StatusOr<CheckpointChoice> ChooseCheckpoint(const std::string& directory, const std::string& resume,
                                                  Communicator& comm);

// kResized: allows another image_size if no parameter depends on it. kForced: warns about differences that
// only make the runs incomparable, instead of refusing them: image_size, mean, std, class names and the
// settings of elastic runs. At the end of an epoch it also allows another seed and order of samples; within
// an epoch these would repeat and miss samples. Another dataset or global_batch stays refused: it would
// change the meaning of steps and epochs.
enum class Match { kExact, kResized, kForced };

struct LoadedState : TrainState {
  std::vector<std::string> warnings;  // one per forced difference
};

// Loads a step directory that any number of ranks wrote. `params` change only if every rank read everything
// and every checksum matches: the state is read into separate memory, which then replaces that of `params`
// (ParamStore::Swap). Nothing may be bound to `params` yet. FailedPrecondition lists differences: tensors of
// the model; dataset, seed, batch and order of expected.data; fields of expected.config, which must be as
// saved.
absl::StatusOr<LoadedState> LoadCheckpoint(const std::string& path, const TrainState& expected, Match match,
                                           ParamStore& params, Communicator& comm);

}  // namespace deeper
