// A training run: opens, checks and announces everything before step 0, then trains, evaluates and saves.
#pragma once

#include <cstdio>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/run/config.h"

namespace deeper {

// Collective. Progress and announcements go to `out` (nullptr on ranks other than 0). A failure is the same
// on every rank and carries its exit code: kNotFinite; kCheckpoint if the last state could not be saved;
// kPreempted after a signal, with everything saved. A rank that fails during a step calls Abort.
absl::Status Train(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out);

}  // namespace deeper
