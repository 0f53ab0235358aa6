// The set of cores that this process may run on.
#pragma once

#include <string>
#include <vector>

namespace deeper {

// Parses a CPU list of the kernel such as "0-3,8,10-11". Returns an empty set if the text is not a valid
// list.
std::vector<int> ParseCpuList(const std::string& list);

// Restricts this thread, and the threads that it starts later, to those of `cpus` that it may already run on.
// Changes nothing if none of them remains.
void KeepTo(const std::vector<int>& cpus);

}  // namespace deeper
