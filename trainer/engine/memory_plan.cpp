#include "trainer/engine/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "kernels/base/tensor.h"

namespace deeper {
namespace {

constexpr size_t kAlignment = 256;  // required of workspaces by cuDNN and cuBLASLt

bool Overlap(const Lifetime& a, const Lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

}  // namespace

MemoryPlan PlanMemory(const std::vector<Lifetime>& lifetimes) {
  std::vector<size_t> by_size(lifetimes.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  MemoryPlan plan{std::vector<size_t>(lifetimes.size(), 0), 0};
  std::vector<size_t> by_offset;  // the buffers placed so far
  for (const size_t buffer : by_size) {
    const size_t bytes = RoundUp(lifetimes[buffer].bytes, kAlignment);
    size_t offset = 0;
    for (const size_t placed : by_offset) {
      if (!Overlap(lifetimes[buffer], lifetimes[placed])) continue;
      if (offset + bytes <= plan.offsets[placed]) break;  // fits in the gap before it
      offset = std::max(offset, plan.offsets[placed] + RoundUp(lifetimes[placed].bytes, kAlignment));
    }
    plan.offsets[buffer] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
    const auto later = [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; };
    by_offset.insert(std::upper_bound(by_offset.begin(), by_offset.end(), buffer, later), buffer);
  }
  return plan;
}

}  // namespace deeper
