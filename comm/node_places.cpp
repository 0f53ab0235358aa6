#include "comm/node_places.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/base/device.h"

namespace deeper {
namespace {

// A machine, and the CPUs that a rank may use on it.
struct CpuSet {
  char host[64] = {};
  cpu_set_t cpus = {};
};

}  // namespace

std::vector<RankPlace> GatherNodePlaces(Communicator& comm) {
  std::vector<RankPlace> places(static_cast<size_t>(comm.size()));
  comm.AllGather(&comm.place(), places.data(), sizeof(RankPlace), {}).Wait();
  return places;
}

// Ranks of a node are numbered in the order of their ranks in the job. So every local rank has its expected
// number only if the nodes hold whole blocks of ranks.
bool TreeKeepsToNodes(std::span<const RankPlace> places) {
  const auto share = static_cast<size_t>(places.front().local_size);
  if (!std::has_single_bit(places.size()) || !std::has_single_bit(share)) return false;
  if (share == 1 || share == places.size()) return false;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    if (static_cast<size_t>(places[rank].local_size) != share) return false;
    if (static_cast<size_t>(places[rank].local_rank) != rank % share) return false;
  }
  return true;
}

int OwnCores(Communicator& comm) {
  CpuSet mine;
  gethostname(mine.host, sizeof mine.host - 1);
  sched_getaffinity(0, sizeof mine.cpus, &mine.cpus);
  std::vector<CpuSet> all(static_cast<size_t>(comm.size()), mine);
  comm.AllGather(&mine, all.data(), sizeof mine, {}).Wait();
  const auto sharing = std::ranges::count_if(
      all, [&](const CpuSet& other) { return std::memcmp(&other, &mine, sizeof mine) == 0; });
  return std::max(1, AvailableCores() / static_cast<int>(sharing));
}

}  // namespace deeper
