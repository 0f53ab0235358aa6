// Places buffers in one arena, where those that are never alive at the same time share memory.
#pragma once

#include <cstddef>
#include <vector>

namespace deeper {

// A buffer alive at the times first..last, both included.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;
};

struct MemoryPlan {
  std::vector<size_t> offsets;  // [buffer], multiples of 256
  size_t bytes = 0;             // of the arena
};

// Greedy by size: the largest buffer first, each at the lowest gap its lifetime allows (Pisarchyk and Lee,
// "Efficient Memory Management for Deep Neural Net Inference", 2020, section 5.2). Deterministic.
MemoryPlan PlanMemory(const std::vector<Lifetime>& lifetimes);

}  // namespace deeper
