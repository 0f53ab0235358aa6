// NCCL, loaded at run time: the library is larger than everything else together (200 MB), and only jobs with
// several GPU ranks need it. Included by comm/nccl_*.cpp only.
#pragma once

#include <nccl.h>

#include <string>

#include "absl/status/statusor.h"

namespace deeper {

// The NCCL functions used, named as in nccl.h without the prefix.
#define DEEPER_NCCL_FUNCTIONS(F) \
  F(GetVersion);                 \
  F(GetErrorString);             \
  F(GetLastError);               \
  F(GetUniqueId);                \
  F(CommInitRankConfig);         \
  F(CommGetAsyncError);          \
  F(CommFinalize);               \
  F(CommDestroy);                \
  F(CommRegister);               \
  F(CommDeregister);             \
  F(AllReduce);                  \
  F(ReduceScatter);              \
  F(AllGather);                  \
  F(Broadcast)

struct NcclLibrary {
#define DEEPER_MEMBER(Name) decltype(&nccl##Name) Name
  DEEPER_NCCL_FUNCTIONS(DEEPER_MEMBER);
#undef DEEPER_MEMBER

  std::string Version() const;  // "2.28.9"

  // Opens `file` as the dynamic linker finds it, and never closes it. NotFound: no such library, or it lacks
  // some of the functions. NCCL 2.19 (2023) has them all.
  static absl::StatusOr<NcclLibrary> Open(const char* file);
};

// libnccl.so.2, opened once.
const absl::StatusOr<NcclLibrary>& Nccl();

}  // namespace deeper
