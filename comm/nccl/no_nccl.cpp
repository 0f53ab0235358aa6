// Replaces nccl_communicator.cpp in builds without NCCL's header.
#include "comm/nccl/nccl_communicator.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr char kBuiltWithoutNccl[] = "this program was built without NCCL";

}  // namespace

absl::StatusOr<std::string> LoadNccl() {
  return Unimplemented(kBuiltWithoutNccl);
}

std::unique_ptr<Communicator> MakeNcclCommunicator(Communicator& inner, Device&, bool) {
  inner.Abort(kCommunicationExitCode, kBuiltWithoutNccl);
  return nullptr;  // not reached
}

}  // namespace deeper
