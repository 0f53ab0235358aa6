#include "comm/mpi/launcher.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "comm/network_interfaces.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

struct Launcher {
  const char *size, *rank;  // environment variables
  const char* advice;
};

// The innermost launcher comes first: mpirun's ranks inherit the variables of the Slurm step of their daemon.
constexpr Launcher kLaunchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
     "deeper runs with another MPI library than this launcher: use the mpirun of the Open MPI that `ldd` "
     "shows for deeper"},
    {"PMI_SIZE", "PMI_RANK",
     "the MPI library of deeper does not support this launcher: under Slurm use `srun --mpi=pmix`, "
     "otherwise the mpirun of the Open MPI that `ldd` shows for deeper"},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID",
     "use `srun --mpi=pmix` (`srun --mpi=list` shows whether this Slurm has it), or deeper-run or mpirun in "
     "the job; for a single process, pass --ntasks=1 to srun"}};

// Whether an IPv4 address belongs to a subnet like "10.0.0.0/24".
bool IsWithin(in_addr address, const std::string& subnet) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(subnet, absl::MaxSplits('/', 1));
  in_addr base = {};
  int bits = 0;
  if (inet_pton(AF_INET, parts.first.c_str(), &base) != 1 || !absl::SimpleAtoi(parts.second, &bits) ||
      bits < 0 || bits > 32)
    return false;
  const uint32_t mask = bits == 0 ? 0 : ~uint32_t{0} << (32 - bits);
  return ((ntohl(address.s_addr) ^ ntohl(base.s_addr)) & mask) == 0;
}

// The interfaces of this host with an IPv4 address that `selected` names or contains.
std::vector<std::string> InterfacesOf(const std::vector<std::string>& selected) {
  std::vector<std::string> names;
  for (const NetworkInterface& interface : NetworkInterfaces()) {
    const auto selects = [&](const std::string& item) {
      return item == interface.name || IsWithin(*interface.ipv4, item);
    };
    if (interface.ipv4 && std::ranges::any_of(selected, selects) &&
        std::ranges::find(names, interface.name) == names.end())
      names.push_back(interface.name);
  }
  return names;
}

}  // namespace

bool LaunchedByMpi() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(variable) != nullptr) return true;
  return false;
}

absl::Status CheckLaunch(int ranks) {
  for (const auto& [size, rank, advice] : kLaunchers) {
    const char* const started = std::getenv(size);
    int processes = 0;
    if (started == nullptr || !absl::SimpleAtoi(started, &processes)) continue;
    if (processes == ranks) return absl::OkStatus();
    const char* const mine = std::getenv(rank);
    const bool first = mine == nullptr || absl::string_view(mine) == "0";
    const absl::Status refusal =
        first ? FailedPrecondition("the launcher started ", processes, " processes (", size, "=", started,
                                   "), but this one belongs to an MPI job of ", ranks,
                                   ", so each job would train on its own; ", advice)
              : absl::FailedPreconditionError("");
    return WithExitCode(refusal, ExitCode::kUsage);
  }
  return absl::OkStatus();
}

void ShareNetworkOfMpi() {
  const char* const selected = std::getenv("OMPI_MCA_btl_tcp_if_include");
  if (selected == nullptr) return;
  const std::vector<std::string> names = InterfacesOf(absl::StrSplit(selected, ','));
  if (names.empty()) return;  // MPI reports it
  const std::string list = absl::StrJoin(names, ",");
  // The = means exactly these names, not names that begin with them.
  setenv("NCCL_SOCKET_IFNAME", absl::StrCat("=", list).c_str(), /*overwrite=*/0);
  if (access("/sys/class/infiniband", F_OK) != 0) setenv("UCX_NET_DEVICES", list.c_str(), /*overwrite=*/0);
}

}  // namespace deeper
