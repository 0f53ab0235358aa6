#include "comm/nccl/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<NcclLibrary> NcclLibrary::Open(const char* file) {
  void* const handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return NotFound("cannot load NCCL: ", dlerror());
  NcclLibrary library{};
  absl::Status status;
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) {
      status.Update(NotFound(file, " has no ", name, ": NCCL 2.19 or later is needed"));
    }
  };
#define DEEPER_FIND(Name) find("nccl" #Name, library.Name)
  DEEPER_NCCL_FUNCTIONS(DEEPER_FIND);
#undef DEEPER_FIND
  RETURN_IF_ERROR(status);
  return library;
}

std::string NcclLibrary::Version() const {
  int version = 0;
  if (GetVersion(&version) != ncclSuccess) return "of an unknown version";
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

const absl::StatusOr<NcclLibrary>& Nccl() {
  static const absl::StatusOr<NcclLibrary> library = [] {
    // NCCL registers what a CUDA graph exchanges. Between nodes, some versions then hang in graphs with small
    // and large all-gathers (NVIDIA/nccl#2389).
    setenv("NCCL_GRAPH_REGISTER", "0", /*overwrite=*/0);
    return NcclLibrary::Open("libnccl.so.2");
  }();
  return library;
}

}  // namespace deeper
