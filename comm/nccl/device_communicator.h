// How the ranks of a job combine what lies in the memory of their GPUs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/choice.h"
#include "kernels/base/device.h"

namespace deeper {

// Where a rank computes, as far as NCCL is concerned.
struct GpuPlace {
  char host[64] = {};
  char gpu[32] = {};                // Device::address()
  char nccl_unavailable[160] = {};  // why; empty: NCCL is there
};

struct DeviceTransport {
  bool nccl = false;
  std::string reason;  // for the choice, in words
};

enum class Transport { kAuto, kNccl, kMpi };
constexpr auto Choices(Transport) {
  return std::to_array<Choice<Transport>>(
      {{"auto", Transport::kAuto, "nccl where every rank has NCCL and a GPU of its own, else mpi"},
       {"nccl", Transport::kNccl, "NCCL; one rank per GPU"},
       {"mpi", Transport::kMpi, "MPI, through host memory; any number of ranks per GPU"}});
}

// places: [rank]. NCCL needs a GPU for each rank, and itself everywhere: where it cannot be, kAuto is kMpi,
// and kNccl FailedPrecondition, which names ranks, host and GPU and says what to do.
absl::StatusOr<DeviceTransport> ChooseTransport(const std::vector<GpuPlace>& places, Transport wanted);

struct DeviceCommunicator {
  std::unique_ptr<Communicator> comm;  // nullptr: the given one will do, as buffers are in its reach
  std::string description;             // "NCCL 2.28.9", ...; empty with nullptr
  int ranks_on_device = 1;             // that share its memory, this one among them
};

// Collective. For buffers in the memory of `device`; host memory stays the business of `comm`. Both must
// outlive what is returned. Errors, the same on every rank: ChooseTransport's. A rank that NCCL fails on ends
// the job through Abort.
absl::StatusOr<DeviceCommunicator> MakeDeviceCommunicator(Communicator& comm, Device& device,
                                                          Transport wanted);

}  // namespace deeper
