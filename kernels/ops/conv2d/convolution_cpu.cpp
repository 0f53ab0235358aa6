#include "kernels/ops/conv2d/convolution_cpu.h"

#include <algorithm>

#include "kernels/base/status.h"

namespace deeper {
namespace {

// Calls visit(first element in the whole, first element in the middle, count) for every row of a block of
// weights of one tap.
template <class Visit>
void ForEachTap(const ParamLayout& middle, int64_t kernel, int64_t idle, const Visit& visit) {
  const int64_t inner = kernel - 2 * idle, count = middle.block * middle.block;
  const int64_t tiles = middle.stored_elements / (inner * inner * count);
  for (int64_t tile = 0; tile < tiles; ++tile) {
    for (int64_t tap = 0; tap < inner * inner; ++tap) {
      const int64_t row = tap / inner + idle, column = tap % inner + idle;
      visit(((tile * kernel + row) * kernel + column) * count, (tile * inner * inner + tap) * count, count);
    }
  }
}

}  // namespace

absl::StatusOr<ConvolutionCpu> ConvolutionCpu::Make(const onednn::Weighted& passes,
                                                    const onednn::Desc& stored) {
  ConvolutionCpu made;
  const auto prepare = [&](Pass& pass, const onednn::Primitive& run, int weight_arg) -> absl::Status {
    if (run.empty()) return absl::OkStatus();
    pass.run = run;
    const onednn::Desc wanted = run.ArgDesc(weight_arg);
    const bool is_gradient = weight_arg == DNNL_ARG_DIFF_WEIGHTS;
    ASSIGN_OR_RETURN(pass.change,
                     is_gradient ? onednn::MakeReorder(wanted, stored) : onednn::MakeReorder(stored, wanted));
    if (!pass.change.empty()) pass.copy_bytes = RoundUp(wanted.get_size(), onednn::kAlignment);
    const size_t scratch = std::max(run.scratch_bytes(), pass.change.scratch_bytes());
    made.workspace_bytes_ = std::max(made.workspace_bytes_, pass.copy_bytes + scratch);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(prepare(made.forward_, passes.forward, DNNL_ARG_WEIGHTS));
  RETURN_IF_ERROR(prepare(made.backward_data_, passes.backward_data, DNNL_ARG_WEIGHTS));
  RETURN_IF_ERROR(prepare(made.backward_weights_, passes.backward_weights, DNNL_ARG_DIFF_WEIGHTS));
  return made;
}

void ConvolutionCpu::Bind(const Memory& m) {
  const auto bind = [&m](Pass& pass, float* stored) {
    // The weights of a pass: the parameters, or their copy at the start of the workspace.
    void* const weights = pass.change.empty() ? static_cast<void*>(stored) : m.workspace;
    void* const scratch = m.workspace == nullptr ? nullptr : m.workspace + pass.copy_bytes;
    pass.run.Bind({{DNNL_ARG_SRC, m.x},
                   {DNNL_ARG_WEIGHTS, weights},
                   {DNNL_ARG_BIAS, m.bias},
                   {DNNL_ARG_DST, m.y},
                   {DNNL_ARG_DIFF_DST, m.dy},
                   {DNNL_ARG_DIFF_SRC, m.dx},
                   {DNNL_ARG_DIFF_WEIGHTS, weights},
                   {DNNL_ARG_DIFF_BIAS, m.bias_grad}},
                  scratch);
    const bool reads = stored == m.weight;
    pass.change.Bind({{DNNL_ARG_FROM, reads ? stored : weights}, {DNNL_ARG_TO, reads ? weights : stored}},
                     scratch);
  };
  bind(forward_, m.weight);
  bind(backward_data_, m.weight);
  bind(backward_weights_, m.weight_grad);
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

MiddleTaps::MiddleTaps(const Conv2dParams& params, const Shape& x, const ParamSpec& weight,
                       const ParamLayout& layout)
    : weight_(weight), kernel_(params.kernel) {
  const bool same = params.stride == 1 && 2 * params.pad + 1 == params.kernel;
  if (same) idle_ = std::max<int64_t>(0, params.pad - (std::max(x.h, x.w) - 1));
  weight_.shape[2] = weight_.shape[3] = kernel_ - 2 * idle_;
  layout_ = MakeParamLayout(weight_, layout.block);
}

void MiddleTaps::CopyOut(const float* whole, float* middle) const {
  if (idle_ == 0) return;
  ForEachTap(layout_, kernel_, idle_,
             [&](int64_t w, int64_t m, int64_t n) { std::copy_n(whole + w, n, middle + m); });
}

void MiddleTaps::CopyIn(const float* middle, float* whole) const {
  if (idle_ == 0) return;
  const int64_t inner = kernel_ - 2 * idle_;
  std::fill_n(whole, layout_.stored_elements / (inner * inner) * kernel_ * kernel_, 0.0f);
  ForEachTap(layout_, kernel_, idle_,
             [&](int64_t w, int64_t m, int64_t n) { std::copy_n(middle + m, n, whole + w); });
}

}  // namespace deeper
