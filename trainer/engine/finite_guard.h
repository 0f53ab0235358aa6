// Prevents steps whose loss or gradients are NaN or infinite from changing the weights, on all ranks alike.
//
// The sum of the gradients over the ranks decides. It has the same bits on every rank, so the ranks agree
// without a message. A rank whose loss alone is not finite sets one of its gradients to NaN. The verdict is a
// flag in device memory, which the optimizer reads, so that the host need not wait before the update. To find
// the rank at fault, each also inspects its own gradients before they are sent, while they are in its caches.
// This costs one or two passes over the gradients per step.
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
  // Of each micro-batch. losses: [head] in device memory.
  void InspectLosses(const HeadResult* losses, bool first);
  void InspectPiece(size_t piece);  // gradient_pieces()[piece] is final on this rank and not yet sent
  // The sums over ranks are complete. Restores the running statistics of BeginStep if they are not finite.
  void InspectSums();
  // In device memory, after InspectSums: not 0 if the weights must not be updated.
  const uint32_t* verdict() const { return flag(pieces_); }

  // After Device::Synchronize. False: the weights must not have been updated.
  bool EndStep() const { return staged_flags_.as<uint32_t>()[pieces_] == 0; }
  // Collective, after EndStep returned false. Names the first gradient, in the order of backward, that is not
  // finite, the lowest rank that it came from, and the loss of that rank. The same on every rank. `loss`:
  // sums of this rank's heads.
  std::string Culprit(std::span<const HeadResult> loss) const;

 private:
  std::optional<std::string> FirstBadParam(size_t piece) const;
  uint32_t* flag(size_t i) const { return flags_.as<uint32_t>() + i; }

  const Network& net_;
  ParamStore& params_;
  Communicator& comm_;
  Device& device_;
  const size_t pieces_;
  // uint32_t [pieces + 2]: of each piece on this rank, of all sums, of this rank's losses
  Buffer flags_, staged_flags_;
  Buffer workspace_, statistics_;
};

}  // namespace deeper
