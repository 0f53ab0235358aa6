#include "kernels/ops/conv2d/convolution_cpu.h"

#include <algorithm>

namespace deeper {
namespace {

using onednn::Desc;
using onednn::Primitive;

constexpr size_t kAlign = 64;

size_t Align(size_t bytes) {
  return (bytes + kAlign - 1) / kAlign * kAlign;
}

}  // namespace

size_t ConvolutionCpu::Pass::workspace_bytes() const {
  return copy_bytes + std::max(run.scratch_bytes(), change.scratch_bytes());
}

absl::StatusOr<ConvolutionCpu> ConvolutionCpu::Make(const onednn::Weighted& passes, const Desc& stored) {
  ConvolutionCpu made;
  const auto prepare = [&stored](Pass& pass, const Primitive& run, int weight_arg) {
    if (run.empty()) return absl::OkStatus();
    pass.run = run;
    const Desc wanted = run.ArgDesc(weight_arg);
    const bool is_gradient = weight_arg == DNNL_ARG_DIFF_WEIGHTS;
    auto change = is_gradient ? onednn::MakeReorder(wanted, stored) : onednn::MakeReorder(stored, wanted);
    if (!change.ok()) return change.status();
    pass.change = *change;
    if (!pass.change.empty()) pass.copy_bytes = Align(wanted.get_size());
    return absl::OkStatus();
  };
  if (auto s = prepare(made.forward_, passes.forward, DNNL_ARG_WEIGHTS); !s.ok()) return s;
  if (auto s = prepare(made.backward_data_, passes.backward_data, DNNL_ARG_WEIGHTS); !s.ok()) return s;
  if (auto s = prepare(made.backward_weights_, passes.backward_weights, DNNL_ARG_DIFF_WEIGHTS); !s.ok())
    return s;
  return made;
}

size_t ConvolutionCpu::workspace_bytes() const {
  return std::max(
      {forward_.workspace_bytes(), backward_data_.workspace_bytes(), backward_weights_.workspace_bytes()});
}

void ConvolutionCpu::Bind(const Memory& m) {
  // Where a pass finds its weights: in the parameters, or in the copy at the start of the workspace.
  const auto weights = [&m](const Pass& pass, void* stored) -> void* {
    return pass.change.empty() ? stored : m.workspace;
  };
  const auto bind = [&m](Pass& pass, std::initializer_list<std::pair<int, void*>> args, void* from,
                         void* to) {
    void* scratch = m.workspace == nullptr ? nullptr : m.workspace + pass.copy_bytes;
    pass.run.Bind(args, scratch);
    pass.change.Bind({{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}}, scratch);
  };
  bind(forward_,
       {{DNNL_ARG_SRC, m.x},
        {DNNL_ARG_WEIGHTS, weights(forward_, m.weight)},
        {DNNL_ARG_BIAS, m.bias},
        {DNNL_ARG_DST, m.y}},
       m.weight, m.workspace);
  bind(backward_data_,
       {{DNNL_ARG_DIFF_DST, m.dy},
        {DNNL_ARG_WEIGHTS, weights(backward_data_, m.weight)},
        {DNNL_ARG_DIFF_SRC, m.dx}},
       m.weight, m.workspace);
  bind(backward_weights_,
       {{DNNL_ARG_SRC, m.x},
        {DNNL_ARG_DIFF_DST, m.dy},
        {DNNL_ARG_DIFF_WEIGHTS, weights(backward_weights_, m.weight_grad)},
        {DNNL_ARG_DIFF_BIAS, m.bias_grad}},
       m.workspace, m.weight_grad);
}

void ConvolutionCpu::Forward() const {
  forward_.change.Run();
  forward_.run.Run();
}

void ConvolutionCpu::Backward() const {
  backward_weights_.run.Run();
  backward_weights_.change.Run();
  backward_data_.change.Run();
  backward_data_.run.Run();
}

}  // namespace deeper
