// The steps of a run, and what happens between them: reports, evaluations, checkpoints, and the end.
#pragma once

#include "absl/status/status.h"
#include "trainer/run/train_setup.h"

namespace deeper {

// Collective. Trains from where `run` stands to its last step, or until a signal asks for the end. The
// failure is the same on every rank and carries its exit code: kNotFinite; kCheckpoint if the last state
// could not be saved; kPreempted after a signal, everything saved. Where a single rank fails in mid-step, it
// ends the job through Communicator::Abort.
absl::Status RunSteps(TrainSetup& run);

}  // namespace deeper
