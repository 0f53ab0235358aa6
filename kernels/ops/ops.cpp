#include "kernels/ops/ops.h"

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

}  // namespace

std::string_view KindOf(const OpParams& params) {
  using namespace std::string_view_literals;
  return std::visit(
      Overloaded{
          [](const Conv2dParams&) { return "conv2d"sv; },
          [](const InceptionParams&) { return "inception"sv; },
          [](const PoolParams& p) { return p.kind == PoolParams::Kind::kMax ? "max_pool"sv : "avg_pool"sv; },
          [](const GlobalAvgPoolParams&) { return "global_avg_pool"sv; },
          [](const LrnParams&) { return "lrn"sv; },
          [](const DropoutParams&) { return "dropout"sv; },
          [](const FlattenParams&) { return "flatten"sv; },
          [](const LinearParams&) { return "linear"sv; },
      },
      params);
}

bool TakesSlices(const OpParams& params) {
  return std::holds_alternative<Conv2dParams>(params) || std::holds_alternative<InceptionParams>(params) ||
         std::holds_alternative<PoolParams>(params) || std::holds_alternative<GlobalAvgPoolParams>(params);
}

absl::StatusOr<OpShape> InferOp(const OpParams& params, const Shape& x) {
  return std::visit(Overloaded{
                        [&](const Conv2dParams& p) { return InferConv2d(p, x); },
                        [&](const InceptionParams& p) { return InferInception(p, x); },
                        [&](const PoolParams& p) { return InferPool(p, x); },
                        [&](const GlobalAvgPoolParams& p) { return InferGlobalAvgPool(p, x); },
                        [&](const LrnParams& p) { return InferLrn(p, x); },
                        [&](const DropoutParams& p) { return InferDropout(p, x); },
                        [&](const FlattenParams& p) { return InferFlatten(p, x); },
                        [&](const LinearParams& p) { return InferLinear(p, x); },
                    },
                    params);
}

absl::StatusOr<std::unique_ptr<Op>> MakeOp(const OpParams& params, const TensorDesc& x,
                                           const OpOptions& options, Device& device) {
  if (options.sum_over_ranks && device.type() != DeviceType::kCpu) {
    return absl::UnimplementedError(
        absl::StrCat(options.name, ": only on CPUs does batch norm exchange its sums between ranks"));
  }
  return std::visit(
      Overloaded{
          [&](const Conv2dParams& p) { return MakeConv2d(p, x, options, device); },
          [&](const InceptionParams& p) { return MakeInception(p, x, options, device); },
          [&](const PoolParams& p) { return MakePool(p, x, options, device); },
          [&](const GlobalAvgPoolParams& p) { return MakeGlobalAvgPool(p, x, options, device); },
          [&](const LrnParams& p) { return MakeLrn(p, x, options, device); },
          [&](const DropoutParams& p) { return MakeDropout(p, x, options, device); },
          [&](const FlattenParams& p) { return MakeFlatten(p, x, options, device); },
          [&](const LinearParams& p) { return MakeLinear(p, x, options, device); },
      },
      params);
}

}  // namespace deeper
