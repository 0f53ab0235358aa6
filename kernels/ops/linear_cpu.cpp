#include <algorithm>

#include "kernels/cpu/onednn.h"
#include "kernels/ops/join.h"
#include "kernels/ops/linear.h"

namespace deeper {
namespace {

struct Primitives {
  onednn::Weighted passes;
  onednn::Primitive cast;  // the float32 weight to x's type; empty where that is float32
};

// The weight stays as it is kept, [K,C]: bringing it into another order would cost more than the small
// products gain.
class LinearCpu final : public Op {
 public:
  LinearCpu(const LinearParams& params, const OpShape& shape, const TensorDesc& x, const OpOptions& options,
            Primitives primitives)
      : relu_(params.relu), passes_(std::move(primitives.passes)), cast_(std::move(primitives.cast)) {
    needs_.x = x;
    needs_.y = {shape.y, x.dtype};
    if (options.training && options.want_dx) needs_.dx_parts = {x};
    for (const ParamSpec& spec : shape.params) needs_.params.push_back(MakeParamLayout(spec, 1));
    needs_.saved_bytes = cast_.ArgBytes(DNNL_ARG_TO);
    needs_.workspace_bytes = std::max({passes_.forward.scratch_bytes(), passes_.backward_data.scratch_bytes(),
                                       passes_.backward_weights.scratch_bytes(), cast_.scratch_bytes()});
    needs_.backward_reads_x = options.training;
    needs_.backward_reads_y = options.training && relu_;
  }

  void Bind(const OpBinding& b) override {
    Op::Bind(b);
    void* const weight = cast_.empty() ? b.params[0] : b.saved;
    cast_.Bind({{DNNL_ARG_FROM, b.params[0]}, {DNNL_ARG_TO, weight}}, b.workspace);
    passes_.forward.Bind(
        {{DNNL_ARG_SRC, b.x}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_BIAS, b.params[1]}, {DNNL_ARG_DST, b.y}},
        b.workspace);
    if (passes_.backward_weights.empty()) return;
    passes_.backward_weights.Bind({{DNNL_ARG_SRC, b.x},
                                   {DNNL_ARG_DIFF_DST, b.dy[0]},
                                   {DNNL_ARG_DIFF_WEIGHTS, b.grads[0]},
                                   {DNNL_ARG_DIFF_BIAS, b.grads[1]}},
                                  b.workspace);
    if (passes_.backward_data.empty()) return;
    passes_.backward_data.Bind(
        {{DNNL_ARG_DIFF_DST, b.dy[0]}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DIFF_SRC, b.dx[0]}},
        b.workspace);
  }
  void Forward() override {
    cast_.Run();
    passes_.forward.Run();
  }
  void Backward() override {
    JoinGradientsCpu(binding_.dy, relu_ ? binding_.y : nullptr, needs_.y, binding_.dy[0]);
    passes_.backward_data.Run();
    passes_.backward_weights.Run();
  }

 private:
  bool relu_;
  onednn::Weighted passes_;
  onednn::Primitive cast_;
};

onednn::Desc MatrixOf(const TensorDesc& x) {
  return onednn::DescOf(x).reshape({x.shape.n, x.shape.c});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Op>> MakeLinearCpu(const LinearParams& params, const OpShape& shape,
                                                  const TensorDesc& x, const OpOptions& options, Device&) {
  const ParamSpec& weight = shape.params[0];
  const onednn::Desc master = onednn::DescOf(weight, {}), bias = onednn::DescOf(shape.params[1], {});
  const onednn::Desc used = MatrixOf({{weight.shape[0], weight.shape[1]}, x.dtype});
  auto passes =
      onednn::MakeInnerProduct({MatrixOf(x), used, master, bias, MatrixOf({shape.y, x.dtype}), params.relu},
                               {options.training, options.want_dx});
  if (!passes.ok()) return passes.status();
  auto cast = onednn::MakeReorder(master, used);
  if (!cast.ok()) return cast.status();
  return std::make_unique<LinearCpu>(params, shape, x, options,
                                     Primitives{*std::move(passes), *std::move(cast)});
}

}  // namespace deeper
