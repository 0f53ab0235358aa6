// How the ranks of a job are placed on its machines and cores.
#pragma once

#include <span>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

// Collective. Indexed by rank.
std::vector<RankPlace> GatherNodePlaces(Communicator& comm);

// places: [rank]. Whether a ReduceOp::kTreeSum of these ranks is hierarchical. Ranks pair with neighbours
// first. So if 2, 4, 8, ... neighbours share each of 2, 4, 8, ... nodes, the sum runs within the nodes, then
// between them, where a rank exchanges only its share, then back within the nodes. The traffic between n
// nodes is then minimal: 2 (n - 1) / n of the data each way, for any number of ranks per node.
bool TreeKeepsToNodes(std::span<const RankPlace> places);

// Collective. The number of cores for this rank, at least 1: all that it may use if the launcher bound every
// rank to its own, or an equal share if ranks share them.
int OwnCores(Communicator& comm);

}  // namespace deeper
