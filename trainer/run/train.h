// A training run: opens, checks and announces all before step 0; then steps, evaluates, saves and reports.
#pragma once

#include <cstdio>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/run/config.h"

namespace deeper {

// Collective. Progress and announcements go to `out` (nullptr on ranks other than 0). The failure is the same
// on every rank and carries its exit code: kNotFinite; kCheckpoint if the last state could not be saved;
// kPreempted after a signal, everything saved. One of a single rank in mid-step ends in Communicator::Abort.
absl::Status Train(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out);

}  // namespace deeper
