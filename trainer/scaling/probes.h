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

// All others are collective. At least two ranks; measures the link from the previous rank, one by one.
void MeasureLink(Communicator& comm, RankHealth& mine);
// `comm` works on device memory, with two ranks or more. Four sizes: this rank's minimum of some rounds.
// `op`: as training sums gradients.
std::vector<CommSample> MeasureAllReduces(Communicator& comm, Device& device, ReduceOp op);
void MeasureClockSkew(Communicator& comm, RankHealth& mine);
// Creates the directory if it is missing. Rank 0 takes the lock of a training job; no other rank may get it.
// Errors carry ExitCode::kCheckpoint.
absl::Status ExamineDirectory(const std::string& directory, Communicator& comm, RankHealth& mine);

}  // namespace deeper
