#include "kernels/base/affinity.h"

#include <sched.h>

#include <charconv>

namespace deeper {

std::vector<int> ParseCpuList(const std::string& list) {
  std::vector<int> cpus;
  const char *at = list.data(), *const end = at + list.size();
  while (at < end && *at != '\n') {
    int first = 0;
    const auto [after_first, first_error] = std::from_chars(at, end, first);
    if (first_error != std::errc()) return {};
    int last = first;
    at = after_first;
    if (at < end && *at == '-') {
      const auto [after_last, last_error] = std::from_chars(at + 1, end, last);
      if (last_error != std::errc()) return {};
      at = after_last;
    }
    for (int cpu = first; cpu <= last && cpu < CPU_SETSIZE; ++cpu) cpus.push_back(cpu);
    if (at < end && *at == ',') ++at;
  }
  return cpus;
}

void KeepTo(const std::vector<int>& cpus) {
  cpu_set_t allowed, kept;
  CPU_ZERO(&kept);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  for (const int cpu : cpus) {
    if (CPU_ISSET(cpu, &allowed)) CPU_SET(cpu, &kept);
  }
  if (CPU_COUNT(&kept) > 0) sched_setaffinity(0, sizeof kept, &kept);
}

}  // namespace deeper
