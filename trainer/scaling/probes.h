// What `deeper doctor` measures besides training: hosts, links, clocks, the checkpoint directory.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/scaling/health.h"
#include "trainer/scaling/scaling_model.h"

namespace deeper {

// Names, memory, clock, cores and the fastest network interface of this rank.
void DescribeRank(const Device& device, RankHealth& mine);

// All others are collective. On two ranks at least; the link from the rank before, one link at a time.
void MeasureLink(Communicator& comm, RankHealth& mine);
// `comm` is over the device's memory. At least two ranks, four sizes: this rank's least of some rounds.
std::vector<CommSample> MeasureAllReduces(Communicator& comm, Device& device);
void MeasureClockSkew(Communicator& comm, RankHealth& mine);
// Creates the directory where it is missing. Rank 0 takes the lock that a training job would take, and no
// other rank may get it meanwhile. Errors carry ExitCode::kCheckpoint.
absl::Status ExamineDirectory(const std::string& directory, Communicator& comm, RankHealth& mine);

}  // namespace deeper
