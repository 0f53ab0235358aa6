#include <algorithm>

#include "kernels/base/status.h"
#include "kernels/cpu/onednn.h"
#include "kernels/ops/join.h"
#include "kernels/ops/lrn.h"

namespace deeper {
namespace {

class LrnCpu final : public Op {
 public:
  LrnCpu(const OpSetup& s, onednn::ForwardBackward passes)
      : forward_(std::move(passes.forward)), backward_(std::move(passes.backward)) {
    needs_.x = needs_.y = s.x;
    if (s.wants_dx()) needs_.dx_parts = {s.x};
    needs_.saved_bytes = forward_.ArgBytes(DNNL_ARG_WORKSPACE);
    needs_.workspace_bytes = std::max(forward_.scratch_bytes(), backward_.scratch_bytes());
    needs_.backward_reads_x = !needs_.dx_parts.empty();
  }

  void Bind(const OpBinding& b) override {
    Op::Bind(b);
    forward_.Bind({{DNNL_ARG_SRC, b.x}, {DNNL_ARG_DST, b.y}, {DNNL_ARG_WORKSPACE, b.saved}}, b.workspace);
    if (needs_.dx_parts.empty()) return;
    backward_.Bind({{DNNL_ARG_SRC, b.x},
                    {DNNL_ARG_DIFF_DST, b.dy[0]},
                    {DNNL_ARG_DIFF_SRC, b.dx[0]},
                    {DNNL_ARG_WORKSPACE, b.saved}},
                   b.workspace);
  }
  void Forward() override { forward_.Run(); }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCpu(binding_.dy, nullptr, needs_.y, binding_.dy[0]);
    backward_.Run();
  }

 private:
  onednn::Primitive forward_, backward_;
};

}  // namespace

MadeOp MakeCpu(const LrnParams& params, const OpSetup& setup) {
  ASSIGN_OR_RETURN(auto passes,
                   onednn::MakeLrn(onednn::DescOf(setup.x), params.size, params.alpha, params.beta, params.k,
                                   {setup.options.training, setup.options.want_dx}));
  return std::make_unique<LrnCpu>(setup, std::move(passes));
}

}  // namespace deeper
