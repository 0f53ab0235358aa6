#include <algorithm>

#include "kernels/base/status.h"
#include "kernels/cpu/onednn.h"
#include "kernels/ops/join.h"
#include "kernels/ops/linear.h"

namespace deeper {
namespace {

// The weight stays in its stored order, [K,C]. Reordering it would cost more than the small products gain.
class LinearCpu final : public Op {
 public:
  LinearCpu(const LinearParams& params, const OpSetup& s, onednn::Weighted passes, onednn::Primitive cast)
      : relu_(params.relu), passes_(std::move(passes)), cast_(std::move(cast)) {
    needs_ = s.Needs({s.shape.y, s.x.dtype});
    for (const ParamSpec& spec : s.shape.params) needs_.params.push_back(MakeParamLayout(spec, 1));
    needs_.saved_bytes = cast_.ArgBytes(DNNL_ARG_TO);
    needs_.workspace_bytes = std::max({passes_.forward.scratch_bytes(), passes_.backward_data.scratch_bytes(),
                                       passes_.backward_weights.scratch_bytes(), cast_.scratch_bytes()});
    needs_.backward_reads_x = s.options.training;
    needs_.backward_reads_y = s.options.training && relu_;
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
  onednn::Primitive cast_;  // converts the float32 weight to x's type; empty if that is float32
};

onednn::Desc MatrixOf(const TensorDesc& x) {
  return onednn::DescOf(x).reshape({x.shape.n, x.shape.c});
}

}  // namespace

MadeOp MakeCpu(const LinearParams& params, const OpSetup& s) {
  const ParamSpec& weight = s.shape.params[0];
  const onednn::Desc master = onednn::DescOf(weight, {}), bias = onednn::DescOf(s.shape.params[1], {});
  const onednn::Desc used = MatrixOf({{weight.shape[0], weight.shape[1]}, s.x.dtype});
  ASSIGN_OR_RETURN(auto passes, onednn::MakeInnerProduct({MatrixOf(s.x), used, master, bias,
                                                          MatrixOf({s.shape.y, s.x.dtype}), params.relu},
                                                         {s.options.training, s.wants_dx()}));
  ASSIGN_OR_RETURN(auto cast, onednn::MakeReorder(master, used));
  return std::make_unique<LinearCpu>(params, s, std::move(passes), std::move(cast));
}

}  // namespace deeper
