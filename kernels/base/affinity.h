// Which cores this process may run on.
#pragma once

#include <string>
#include <vector>

namespace deeper {

// "0-3,8,10-11", as the kernel writes sets of CPUs; empty if it is none.
std::vector<int> ParseCpuList(const std::string& list);

// Keeps this thread, and those it makes from now on, to those of `cpus` that it may run on already; changes
// nothing if that leaves none.
void KeepTo(const std::vector<int>& cpus);

}  // namespace deeper
