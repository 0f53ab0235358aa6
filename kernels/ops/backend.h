// How an op, or a pass over arrays, selects its implementation for each backend.
//
// A pass has one row in a header, below its contract:
//   DEEPER_BACKENDS(void, Scale, Device& device, float factor, float* x, int64_t count);
// This makes Scale(device, factor, x, count) call ScaleCpu or ScaleCuda with the same arguments, depending on
// the device. x_cpu.cpp defines ScaleCpu, x_cuda.cu defines ScaleCuda.
//
// ops.h lists what an op defines for its parameter struct. MakeOp calls its MakeCpu or MakeCuda with an
// OpSetup.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

// The arguments for preparing an op. Valid during the call only.
struct OpSetup {
  const OpShape& shape;  // Infer's result for x
  const TensorDesc& x;
  const OpOptions& options;
  Device& device;

  bool wants_dx() const { return options.training && options.want_dx; }
  // The needs of an op with that y and, if dx is needed, one dx part.
  OpNeeds Needs(const TensorDesc& y) const {
    OpNeeds needs;
    needs.x = x;
    needs.y = y;
    if (wants_dx()) needs.dx_parts = {x.Dense()};
    return needs;
  }
};
using MadeOp = absl::StatusOr<std::unique_ptr<Op>>;

// The default Check: ops without their own accept every x that their Infer accepts.
template <class Params>
absl::Status Check(const Params&, const OpSetup&) {
  return absl::OkStatus();
}

template <class Function>
struct Backends;
template <class Result, class... Arguments>
struct Backends<Result(Device&, Arguments...)> {
  Result (*cpu)(Device&, Arguments...);
  Result (*cuda)(Device&, Arguments...);  // nullptr in a build without CUDA

  Result operator()(Device& device, Arguments... arguments) const {
    const bool on_cuda = cuda != nullptr && device.type() == DeviceType::kCuda;
    return (on_cuda ? cuda : cpu)(device, std::forward<Arguments>(arguments)...);
  }
};

}  // namespace deeper

#ifdef DEEPER_CUDA
#define DEEPER_CUDA_BODY(function) (&function##Cuda)
#else
#define DEEPER_CUDA_BODY(function) nullptr
#endif
#define DEEPER_BACKENDS(Result, function, ...) \
  Result function##Cpu(__VA_ARGS__);           \
  Result function##Cuda(__VA_ARGS__);          \
  inline constexpr Backends<Result(__VA_ARGS__)> function = {&function##Cpu, DEEPER_CUDA_BODY(function)}
