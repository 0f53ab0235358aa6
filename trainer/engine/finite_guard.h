// Keeps steps whose loss or gradients are NaN or infinite away from the weights, on all ranks alike.
//
// It is the sum of the gradients over the ranks that decides: it has the same bits on every rank, so the
// ranks agree without a message. A rank whose loss alone is not finite makes one of its gradients a NaN; on a
// GPU the loss comes to the host too late for that, and the ranks ask each other after the step. To tell
// which rank it was, each also looks at its own gradients as they leave, still in its caches. Per step that
// is a pass or two over the gradients.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/engine/network.h"
#include "trainer/engine/params.h"

namespace deeper {

class FiniteGuard {
 public:
  // All must outlive the guard. `comm` is over host memory.
  FiniteGuard(const Network& net, ParamStore& params, Communicator& comm, Device& device);

  // In this order, enqueued on the device's stream.
  void BeginStep();  // remembers the running statistics
  // gradient_pieces()[piece] is final on this rank, and has not left. `loss`: sums of this rank's heads,
  // those of earlier micro-batches, and of the network's latest.
  void InspectPiece(size_t piece, std::span<const HeadResult> loss);
  void InspectSums();  // the sums over ranks are there

  // Collective, after Device::Synchronize; `loss`: sums of this rank's heads. False: the weights must not be
  // updated; the running statistics are those of BeginStep again.
  bool EndStep(std::span<const HeadResult> loss);
  // Collective, after EndStep returned false everywhere: the first gradient, in the order of backward, that
  // is not finite, the lowest rank that it came from, and its loss. The same on every rank.
  std::string Culprit(std::span<const HeadResult> loss) const;

 private:
  std::optional<std::string> FirstBadParam(size_t piece) const;
  bool loss_is_on_host() const { return device_.type() == DeviceType::kCpu; }
  uint32_t* flag(size_t i) const { return flags_.as<uint32_t>() + i; }

  const Network& net_;
  ParamStore& params_;
  Communicator& comm_;
  Device& device_;
  const size_t pieces_;
  Buffer flags_, staged_flags_;  // uint32_t [pieces + 1]: of each piece on this rank, then of all sums
  Buffer workspace_, statistics_;
};

}  // namespace deeper
