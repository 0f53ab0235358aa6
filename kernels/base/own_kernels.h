// Which of deeper's own tensor core kernels a GPU may use, and how it tries them.
#pragma once

#include <chrono>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/base/choice.h"
#include "kernels/base/device.h"

namespace deeper {

// Without one, library calls and simple kernels replace it.
enum class OwnKernels { kAll, kSm80, kNone };
constexpr auto Choices(OwnKernels) {
  return std::to_array<Choice<OwnKernels>>({{"all", OwnKernels::kAll, "those that the GPU can run"},
                                            {"sm80", OwnKernels::kSm80, "those without wgmma and TMA"},
                                            {"none", OwnKernels::kNone, "library calls only"}});
}

struct TrialOptions {
  OwnKernels own_kernels = OwnKernels::kAll;
  std::chrono::seconds limit{20};  // for an algorithm in the tuner; then the process ends
};

// As MakeCudaDevice (kernels/base/device.h).
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaOptions& options,
                                                       const TrialOptions& trials);

}  // namespace deeper
