// NCCL, opened at run time: the library is larger than everything else together (200 MB), and only several
// ranks with a GPU each want it. Included by comm/nccl_*.cpp only.
#pragma once

#include <nccl.h>

#include <string>

#include "absl/status/statusor.h"

namespace deeper {

// The functions we call, named as in nccl.h without the prefix.
struct NcclLibrary {
  decltype(&ncclGetVersion) GetVersion;
  decltype(&ncclGetErrorString) GetErrorString;
  decltype(&ncclGetLastError) GetLastError;
  decltype(&ncclGetUniqueId) GetUniqueId;
  decltype(&ncclCommInitRankConfig) CommInitRankConfig;
  decltype(&ncclCommGetAsyncError) CommGetAsyncError;
  decltype(&ncclCommFinalize) CommFinalize;
  decltype(&ncclCommDestroy) CommDestroy;
  decltype(&ncclCommRegister) CommRegister;
  decltype(&ncclCommDeregister) CommDeregister;
  decltype(&ncclAllReduce) AllReduce;
  decltype(&ncclReduceScatter) ReduceScatter;
  decltype(&ncclAllGather) AllGather;
  decltype(&ncclBroadcast) Broadcast;

  std::string Version() const;  // "2.28.9"

  // Opens `file` as the dynamic linker finds it, and never closes it. NotFound: there is none, or one without
  // some of the functions: NCCL 2.19 (2023) has them all.
  static absl::StatusOr<NcclLibrary> Open(const char* file);
};

// libnccl.so.2, opened once.
const absl::StatusOr<NcclLibrary>& Nccl();

}  // namespace deeper
