#include "comm/node_places.h"

#include <bit>

namespace deeper {

std::vector<NodePlace> GatherNodePlaces(Communicator& comm) {
  const NodePlace mine = {comm.local_rank(), comm.local_size()};
  std::vector<NodePlace> places(static_cast<size_t>(comm.size()));
  comm.AllGather(&mine, places.data(), sizeof(mine), {}).Wait();
  return places;
}

// Ranks of a node are numbered in the order of their ranks in the job: only in whole blocks does every rank
// have the number that the blocks give it.
bool TreeKeepsToNodes(std::span<const NodePlace> places) {
  const auto share = static_cast<size_t>(places.front().local_size);
  if (!std::has_single_bit(places.size()) || !std::has_single_bit(share)) return false;
  if (share == 1 || share == places.size()) return false;
  for (size_t rank = 0; rank < places.size(); ++rank) {
    if (static_cast<size_t>(places[rank].local_size) != share) return false;
    if (static_cast<size_t>(places[rank].local_rank) != rank % share) return false;
  }
  return true;
}

}  // namespace deeper
