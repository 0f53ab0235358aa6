#include "comm/nccl/device_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/nccl/nccl_communicator.h"
#include "comm/nccl/staged_communicator.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

template <size_t kSize>
void CopyInto(char (&to)[kSize], const std::string& from) {
  std::strncpy(to, from.c_str(), kSize - 1);
}

// Why NCCL cannot connect ranks at these places; empty if it can.
std::string Obstacle(const std::vector<GpuPlace>& places) {
  std::map<std::pair<std::string, std::string>, size_t> rank_at;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    const GpuPlace& place = places[rank];
    if (*place.nccl_unavailable != '\0')
      return absl::StrCat("rank ", rank, " on host ", place.host, ": ", place.nccl_unavailable);
    if (*place.gpu == '\0') return absl::StrCat("rank ", rank, " on host ", place.host, " has no GPU");
    const auto [first, alone] = rank_at.try_emplace({place.host, place.gpu}, rank);
    if (!alone) {
      return absl::StrCat("ranks ", first->second, " and ", rank, " are both on GPU ", place.gpu, " of host ",
                          place.host);
    }
  }
  return "";
}

}  // namespace

absl::StatusOr<DeviceTransport> ChooseTransport(const std::vector<GpuPlace>& places, Transport wanted) {
  if (wanted == Transport::kMpi) return DeviceTransport{false, "--comm=mpi"};
  const std::string obstacle = Obstacle(places);
  if (obstacle.empty()) return DeviceTransport{true, "every rank has its own GPU"};
  if (wanted == Transport::kAuto) return DeviceTransport{false, obstacle};
  return FailedPrecondition(
      "--comm=nccl: ", obstacle,
      "; start one rank per GPU, with NCCL on every machine, or use --comm=mpi, which copies "
      "through host memory");
}

absl::StatusOr<DeviceCommunicator> MakeDeviceCommunicator(Communicator& comm, Device& device,
                                                          Transport wanted, bool tree_sums) {
  if (comm.size() == 1 || device.type() == DeviceType::kCpu) return DeviceCommunicator{};
  GpuPlace mine;
  gethostname(mine.host, sizeof mine.host - 1);
  CopyInto(mine.gpu, device.address());
  CopyInto(mine.memory, device.uuid());
  CopyInto(mine.nccl_unavailable, std::string(LoadNccl().status().message()));
  std::vector<GpuPlace> places(static_cast<size_t>(comm.size()));
  comm.AllGather(&mine, places.data(), sizeof mine, {}).Wait();
  ASSIGN_OR_RETURN(const DeviceTransport transport, ChooseTransport(places, wanted));

  DeviceCommunicator made;
  made.ranks_on_device = static_cast<int>(std::count_if(places.begin(), places.end(), [&](const auto& place) {
    return std::strcmp(place.host, mine.host) == 0 && std::strcmp(place.memory, mine.memory) == 0;
  }));
  made.comm =
      transport.nccl ? MakeNcclCommunicator(comm, device, tree_sums) : MakeStagedCommunicator(comm, device);
  made.description = absl::StrCat(transport.nccl ? *LoadNccl() : "host memory", " (", transport.reason, ")");
  return made;
}

}  // namespace deeper
