#include "kernels/ops/ops.h"

#include "kernels/base/status.h"

namespace deeper {
namespace {

template <class Params>
MadeOp Make(const Params& params, const TensorDesc& x, const OpOptions& options, Device& device) {
  ASSIGN_OR_RETURN(const OpShape shape, Infer(params, x.shape));
  const OpSetup setup = {shape, x, options, device};
  RETURN_IF_ERROR(Check(params, setup));
#ifdef DEEPER_CUDA
  if (device.type() == DeviceType::kCuda) return MakeCuda(params, setup);
#endif
  return MakeCpu(params, setup);
}

}  // namespace

std::string_view KindOf(const OpParams& params) {
  return std::visit([](const auto& p) { return p.name(); }, params);
}

bool TakesSlices(const OpParams& params) {
  return std::visit([](const auto& p) { return p.kTakesSlices; }, params);
}

absl::StatusOr<OpShape> InferOp(const OpParams& params, const Shape& x) {
  return std::visit([&](const auto& p) { return Infer(p, x); }, params);
}

MadeOp MakeOp(const OpParams& params, const TensorDesc& x, const OpOptions& options, Device& device) {
  return std::visit([&](const auto& p) { return Make(p, x, options, device); }, params);
}

}  // namespace deeper
