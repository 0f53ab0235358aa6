// How the ranks of a job lie on its machines and their cores.
#pragma once

#include <span>
#include <vector>

#include "comm/communicator.h"

namespace deeper {

// Collective. [rank]
std::vector<RankPlace> GatherNodePlaces(Communicator& comm);

// places: [rank]. Whether a ReduceOp::kTreeSum of these ranks is hierarchical: its ranks pair with neighbours
// first, so where 2, 4, 8, ... neighbours share each of 2, 4, 8, ... nodes, it adds up within the nodes, then
// between them, where a rank exchanges its share alone, and hands round within the nodes again. As little as
// can be goes between n nodes: 2 (n - 1) / n of the data each way, whatever the number of ranks.
bool TreeKeepsToNodes(std::span<const RankPlace> places);

// Collective. This rank's fair share of the cores that it may use, at least 1: all of them where the launcher
// bound every rank to its own, a part where ranks share them.
int OwnCores(Communicator& comm);

}  // namespace deeper
