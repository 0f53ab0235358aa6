// The versions of this program and of the libraries that it uses.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace deeper {

// Name: version, of deeper, the commit (empty if the sources were no git checkout), the compiler, and the
// libraries as loaded. CUDA: the toolkit of the build; absent in a build for CPUs.
nlohmann::ordered_json Versions();

// "deeper 0.2.0 (2da555b), GCC 12.2.0, oneDNN 2.6.3, ...", for `deeper --version`.
std::string VersionLine();

}  // namespace deeper
