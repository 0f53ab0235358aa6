// Where tests find their data.
#pragma once

#include <filesystem>

namespace deeper::testing {

// `installed` in the archive that this executable is part of (docs/guides/gpus.md), or, where it is part of
// none, `source`.
inline std::filesystem::path DataDirectory(const char* source, const char* installed) {
  const auto archive = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  return std::filesystem::exists(archive / installed) ? archive / installed : source;
}

}  // namespace deeper::testing
