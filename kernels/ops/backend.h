// How ops, and passes over arrays, come by a body for each backend.
//
// A pass is one row in a header, under its contract:
//   DEEPER_BACKENDS(void, Scale, Device& device, float factor, float* x, int64_t count);
// It makes Scale(device, factor, x, count) call ScaleCpu or ScaleCuda with the same arguments, as the device
// asks for. x_cpu.cpp defines the one, x_cuda.cu the other.
//
// An op is what ops.h lists for its parameter struct; MakeOp calls its MakeCpu or MakeCuda with an OpSetup.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"

namespace deeper {

// What an op is prepared for. It lives for the call only.
struct OpSetup {
  const OpShape& shape;  // what Infer says of x
  const TensorDesc& x;
  const OpOptions& options;
  Device& device;

  bool wants_dx() const { return options.training && options.want_dx; }
  // Of an op with that y, and with dx, if it is wanted, in one part.
  OpNeeds Needs(const TensorDesc& y) const {
    OpNeeds needs;
    needs.x = x;
    needs.y = y;
    if (wants_dx()) needs.dx_parts = {x.Dense()};
    return needs;
  }
};
using MadeOp = absl::StatusOr<std::unique_ptr<Op>>;

// Ops that declare no Check of their own take every x that their Infer accepts.
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
