#include "kernels/base/affinity.h"

#include <sched.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace deeper {

std::vector<int> ParseCpuList(const std::string& list) {
  std::vector<int> cpus;
  for (const absl::string_view part : absl::StrSplit(absl::StripSuffix(list, "\n"), ',', absl::SkipEmpty())) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0, last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || !absl::SimpleAtoi(ends.back(), &last)) return {};
    for (int cpu = first; cpu <= last && cpu < CPU_SETSIZE; ++cpu) cpus.push_back(cpu);
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
