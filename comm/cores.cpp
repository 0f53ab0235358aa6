#include "comm/cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/base/device.h"

namespace deeper {
namespace {

// A machine, and the CPUs of it that a rank may use.
struct Place {
  char host[64] = {};
  cpu_set_t cpus = {};
};

// Ranks, this one among them, that run on the very CPUs that this rank runs on.
int RanksSharingMyCores(Communicator& comm) {
  Place mine;
  gethostname(mine.host, sizeof mine.host - 1);
  sched_getaffinity(0, sizeof mine.cpus, &mine.cpus);
  std::vector<Place> all(static_cast<size_t>(comm.size()), mine);
  comm.AllGather(&mine, all.data(), sizeof mine, {}).Wait();
  const auto same = [&](const Place& other) { return std::memcmp(&other, &mine, sizeof mine) == 0; };
  return static_cast<int>(std::count_if(all.begin(), all.end(), same));
}

}  // namespace

int OwnCores(Communicator& comm) {
  return std::max(1, AvailableCores() / RanksSharingMyCores(comm));
}

}  // namespace deeper
