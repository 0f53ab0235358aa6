// Prevents steps whose loss or gradients are NaN or infinite from changing the weights, on all ranks alike.
//
// The sum of the gradients over the ranks decides. It has the same bits on every rank, so the ranks agree
// without a message. A rank whose loss alone is not finite sets one of its gradients to NaN. On a GPU the
// loss reaches the host too late for that, and the ranks exchange a flag after the step. To find the rank at
// fault, each also inspects its own gradients before they are sent, while they are in its caches. This costs
// one or two passes over the gradients per step.
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

  // Called in this order; enqueued on the device's stream.
  void BeginStep();  // saves the running statistics
  // gradient_pieces()[piece] is final on this rank and not yet sent. `loss`: sums of this rank's heads over
  // earlier micro-batches; the network has those of the latest one.
  void InspectPiece(size_t piece, std::span<const HeadResult> loss);
  void InspectSums();  // the sums over ranks are complete

  // Collective, after Device::Synchronize; `loss`: sums of this rank's heads. False: the weights must not be
  // updated, and the running statistics are restored to those of BeginStep.
  bool EndStep(std::span<const HeadResult> loss);
  // Collective, after EndStep returned false. Names the first gradient, in the order of backward, that is not
  // finite, the lowest rank that it came from, and the loss of that rank. The same on every rank.
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
