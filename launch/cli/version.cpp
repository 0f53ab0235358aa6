#include "launch/cli/version.h"

#include <hdf5.h>

#include "absl/strings/str_cat.h"
#include "comm/mpi/mpi_communicator.h"
#include "kernels/base/device.h"
#include "launch/cli/commit.h"  // made by cmake/commit.cmake

namespace deeper {
namespace {

std::string Hdf5Version() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return absl::StrCat(major, ".", minor, ".", release);
}

#ifdef __clang__
constexpr char kCompiler[] = __VERSION__;  // begins with its name
#else
constexpr char kCompiler[] = "GCC " __VERSION__;
#endif

}  // namespace

nlohmann::ordered_json Versions() {
  nlohmann::ordered_json versions = {{"deeper", DEEPER_VERSION}, {"commit", DEEPER_COMMIT},
                                     {"compiler", kCompiler},    {"oneDNN", OneDnnVersion()},
                                     {"HDF5", Hdf5Version()},    {"MPI", MpiVersion()}};
#ifdef DEEPER_CUDA_VERSION
  versions["CUDA"] = DEEPER_CUDA_VERSION;
#endif
  return versions;
}

std::string VersionLine() {
  std::string line = "deeper " DEEPER_VERSION;
  if (*DEEPER_COMMIT != '\0') line += " (" DEEPER_COMMIT ")";
  const nlohmann::ordered_json versions = Versions();
  for (const auto& [name, version] : versions.items()) {
    if (name == "deeper" || name == "commit") continue;
    const bool named = name == "compiler" || name == "MPI";
    absl::StrAppend(&line, ", ", named ? "" : absl::StrCat(name, " "), version.get<std::string>());
  }
  return line;
}

}  // namespace deeper
