// Collectives between the GPUs of a job's ranks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/choice.h"
#include "kernels/base/device.h"

namespace deeper {

// Where a rank computes, as needed to choose NCCL.
struct GpuPlace {
  char host[64] = {};
  char gpu[32] = {};                // Device::address()
  char memory[40] = {};             // Device::uuid()
  char nccl_unavailable[160] = {};  // why; empty if NCCL is available
};

struct DeviceTransport {
  bool nccl = false;
  std::string reason;  // of the choice, for the user
};

enum class Transport { kAuto, kNccl, kMpi };
constexpr auto Choices(Transport) {
  return std::to_array<Choice<Transport>>(
      {{"auto", Transport::kAuto, "nccl if every rank has NCCL and its own GPU, otherwise mpi"},
       {"nccl", Transport::kNccl, "NCCL; one rank per GPU"},
       {"mpi", Transport::kMpi, "MPI, through host memory; any number of ranks per GPU"}});
}

// places: [rank]. NCCL needs one GPU per rank, and its library on every machine. If that is not so, kAuto
// selects kMpi. kNccl is then FailedPrecondition, which names ranks, host and GPU and says what to do.
absl::StatusOr<DeviceTransport> ChooseTransport(const std::vector<GpuPlace>& places, Transport wanted);

struct DeviceCommunicator {
  std::unique_ptr<Communicator> comm;  // nullptr: use the given one, which can access the buffers
  std::string description;             // "NCCL 2.28.9", ...; empty with nullptr
  int ranks_on_device = 1;             // that share its memory, including this one
};

// Collective. The result is for buffers in the memory of `device`; use `comm` for host memory. Both must
// outlive the result. Errors, the same on every rank: those of ChooseTransport. If NCCL fails on a rank, it
// ends the job through Abort. ReduceOp::kTreeSum needs `tree_sums`.
absl::StatusOr<DeviceCommunicator> MakeDeviceCommunicator(Communicator& comm, Device& device,
                                                          Transport wanted, bool tree_sums = false);

}  // namespace deeper
