#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/base/status.h"
#include "kernels/ops/conv2d/conv2d.h"
#include "kernels/ops/conv2d/convolution_cpu.h"
#include "kernels/ops/conv2d/sync_batch_norm_cpu.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

enum { kWeightParam, kBiasParam, kScaleParam = 1, kShiftParam, kMeanParam, kVarianceParam };

class CpuConv2d final : public Op {
 public:
  CpuConv2d(const Conv2dParams& params, const OpOptions& options)
      : params_(params), training_(options.training) {
    if (training_) sum_over_ranks_ = options.sum_over_ranks;
  }

  absl::Status Prepare(const OpSetup& s);
  void Bind(const OpBinding& b) override;
  void Forward() override;
  void Backward() override;

 private:
  // What batch norm saves for Backward, as offsets into OpBinding::saved, after the convolution's output.
  struct Saved {
    size_t mean = 0, variance = 0, mask = 0;
  };

  absl::Status PrepareNorm();
  void BindNorm(const OpBinding& b, void* z);
  int64_t MeasureAllRanks();
  void UpdateRunningStatistics(int64_t count) const;
  float* Statistic(size_t at) const {
    return reinterpret_cast<float*>(static_cast<std::byte*>(binding_.saved) + at);
  }
  // With batch norm, its backward pass applies the ReLU mask.
  bool masks_dy() const { return params_.relu && !params_.dy_is_masked && !params_.batch_norm; }

  Conv2dParams params_;
  bool training_;
  MiddleTaps middle_;
  float *middle_weight_ = nullptr, *middle_gradient_ = nullptr;  // in the workspace
  ConvolutionCpu conv_;
  onednn::ForwardBackward norm_;
  Saved saved_;
  SumOverRanks sum_over_ranks_;           // empty: batch norm of this rank only
  std::optional<SyncBatchNormCpu> sync_;  // set if sum_over_ranks_ is
};

// Of the weights with NHWC feature maps. oneDNN converts blocked weights twice as fast as plain ones to the
// formats of its bf16 kernels, and returns gradients in this format.
constexpr int64_t kWeightBlock = 16;

// Winograd computes 4x4 outputs at a time: on smaller maps its transforms cost more than they save.
bool WinogradPays(const Conv2dParams& params, const TensorDesc& x) {
  constexpr int64_t kSmallestMap = 7;
  return x.dtype == DType::kF32 && params.kernel == 3 && params.stride == 1 &&
         std::min(x.shape.h, x.shape.w) >= kSmallestMap;
}

absl::Status CpuConv2d::Prepare(const OpSetup& s) {
  const TensorDesc& x = s.x;
  const std::vector<ParamSpec>& params = s.shape.params;
  needs_ = s.Needs(s.device.FeatureMap(s.shape.y, x.dtype));
  const int64_t block = x.layout == Layout::kNhwc ? kWeightBlock : x.block;
  for (const ParamSpec& spec : params) needs_.params.push_back(MakeParamLayout(spec, block));
  needs_.backward_reads_x = training_;
  needs_.backward_reads_y = training_ && masks_dy();

  middle_ = MiddleTaps(params_, x.shape, params[kWeightParam], needs_.params[kWeightParam]);
  const onednn::Desc stored = onednn::DescOf(middle_.weight(), middle_.layout());
  onednn::WeightedDescs descs;
  descs.x = onednn::DescOf(x);
  descs.w = onednn::AnyFormat(stored, x.dtype);
  descs.diff_w = onednn::AnyFormat(stored, DType::kF32);
  descs.y = onednn::DescOf(needs_.y);
  if (!params_.batch_norm) {
    descs.b = onednn::DescOf(params[kBiasParam], needs_.params[kBiasParam]);
    descs.relu = params_.relu;
  }
  ASSIGN_OR_RETURN(const onednn::Weighted passes,
                   onednn::MakeConvolution(descs, params_.stride, params_.pad - middle_.idle(),
                                           WinogradPays(params_, x), {training_, s.wants_dx()}));
  ASSIGN_OR_RETURN(conv_, ConvolutionCpu::Make(passes, stored));
  needs_.workspace_bytes = 2 * middle_.bytes() + conv_.workspace_bytes();
  return params_.batch_norm ? PrepareNorm() : absl::OkStatus();
}

absl::Status CpuConv2d::PrepareNorm() {
  ASSIGN_OR_RETURN(norm_,
                   onednn::MakeBatchNorm(onednn::DescOf(needs_.y), params_.norm.eps, params_.relu, training_,
                                         /*given_statistics=*/!training_ || sum_over_ranks_));
  needs_.workspace_bytes =
      std::max({needs_.workspace_bytes, norm_.forward.scratch_bytes(), norm_.backward.scratch_bytes()});
  if (!training_) return absl::OkStatus();
  if (sum_over_ranks_) sync_.emplace(needs_.y, sum_over_ranks_);
  const size_t statistics =
      RoundUp(static_cast<size_t>(params_.out_channels) * sizeof(float), onednn::kAlignment);
  saved_.mean = RoundUp(needs_.y.bytes(), onednn::kAlignment);
  saved_.variance = saved_.mean + statistics;
  saved_.mask = saved_.variance + statistics;
  needs_.saved_bytes = saved_.mask + norm_.forward.ArgBytes(DNNL_ARG_WORKSPACE);
  return absl::OkStatus();
}

void CpuConv2d::Bind(const OpBinding& b) {
  Op::Bind(b);
  void* z = params_.batch_norm && training_ ? b.saved : b.y;
  ConvolutionCpu::Memory m;
  m.x = b.x;
  m.y = z;
  m.weight = b.params[kWeightParam];
  if (training_) m.weight_grad = b.grads[kWeightParam];
  if (!params_.batch_norm) m.bias = b.params[kBiasParam];
  m.workspace = static_cast<std::byte*>(b.workspace);
  if (middle_.idle() > 0) {
    m.weight = middle_weight_ =
        reinterpret_cast<float*>(std::exchange(m.workspace, m.workspace + middle_.bytes()));
    m.weight_grad = middle_gradient_ =
        reinterpret_cast<float*>(std::exchange(m.workspace, m.workspace + middle_.bytes()));
  }
  if (training_) {
    m.dy = b.dy[0];
    if (!needs_.dx_parts.empty()) m.dx = b.dx[0];
    if (!params_.batch_norm) m.bias_grad = b.grads[kBiasParam];
  }
  conv_.Bind(m);
  if (params_.batch_norm) BindNorm(b, z);
}

void CpuConv2d::BindNorm(const OpBinding& b, void* z) {
  auto* saved = static_cast<std::byte*>(b.saved);
  void* mean = training_ ? saved + saved_.mean : static_cast<void*>(b.params[kMeanParam]);
  void* variance = training_ ? saved + saved_.variance : static_cast<void*>(b.params[kVarianceParam]);
  void* mask = training_ ? saved + saved_.mask : nullptr;
  norm_.forward.Bind({{DNNL_ARG_SRC, z},
                      {DNNL_ARG_DST, b.y},
                      {DNNL_ARG_SCALE, b.params[kScaleParam]},
                      {DNNL_ARG_SHIFT, b.params[kShiftParam]},
                      {DNNL_ARG_MEAN, mean},
                      {DNNL_ARG_VARIANCE, variance},
                      {DNNL_ARG_WORKSPACE, mask}},
                     b.workspace);
  if (!training_) return;
  norm_.backward.Bind({{DNNL_ARG_SRC, z},
                       {DNNL_ARG_SCALE, b.params[kScaleParam]},
                       {onednn::kShiftOfBackward, b.params[kShiftParam]},
                       {DNNL_ARG_MEAN, mean},
                       {DNNL_ARG_VARIANCE, variance},
                       {DNNL_ARG_WORKSPACE, mask},
                       {DNNL_ARG_DIFF_DST, b.dy[0]},
                       {DNNL_ARG_DIFF_SRC, b.dy[0]},
                       {DNNL_ARG_DIFF_SCALE, b.grads[kScaleParam]},
                       {DNNL_ARG_DIFF_SHIFT, b.grads[kShiftParam]}},
                      b.workspace);
}

void CpuConv2d::Forward() {
  middle_.CopyOut(binding_.params[kWeightParam], middle_weight_);
  conv_.Forward();
  const int64_t count = sync_ ? MeasureAllRanks() : needs_.y.shape.n * needs_.y.shape.spatial();
  norm_.forward.Run();
  if (params_.batch_norm && training_ && count > 0) UpdateRunningStatistics(count);
}

// If no rank has a counted row, the previous statistics stay. The result is not used, but it must be finite.
int64_t CpuConv2d::MeasureAllRanks() {
  float *const mean = Statistic(saved_.mean), *const variance = Statistic(saved_.variance);
  const int64_t count = sync_->Measure(binding_.saved, binding_.step->rows, mean, variance);
  if (count == 0) {
    std::copy_n(binding_.params[kMeanParam], params_.out_channels, mean);
    std::copy_n(binding_.params[kVarianceParam], params_.out_channels, variance);
  }
  return count;
}

// count: number of values in a channel's statistics.
void CpuConv2d::UpdateRunningStatistics(int64_t count) const {
  const float *const mean = Statistic(saved_.mean), *const variance = Statistic(saved_.variance);
  const auto values = static_cast<float>(count);
  const float momentum = params_.norm.momentum, unbiased = values / std::max(1.0f, values - 1);
  for (int64_t c = 0; c < params_.out_channels; ++c) {
    float& running_mean = binding_.params[kMeanParam][c];
    float& running_variance = binding_.params[kVarianceParam][c];
    running_mean += momentum * (mean[c] - running_mean);
    running_variance += momentum * (variance[c] * unbiased - running_variance);
  }
}

void CpuConv2d::Backward() {
  JoinGradientsCpu(binding_.dy, masks_dy() ? binding_.y : nullptr, needs_.y, binding_.dy[0]);
  norm_.backward.Run();
  if (sync_) {
    sync_->Complete({.x = binding_.saved,
                     .rows = binding_.step->rows,
                     .mean = Statistic(saved_.mean),
                     .variance = Statistic(saved_.variance),
                     .scale = binding_.params[kScaleParam],
                     .eps = params_.norm.eps,
                     .dscale = binding_.grads[kScaleParam],
                     .dshift = binding_.grads[kShiftParam],
                     .dx = binding_.dy[0]});
  }
  middle_.CopyOut(binding_.params[kWeightParam], middle_weight_);
  conv_.Backward();
  middle_.CopyIn(middle_gradient_, binding_.grads[kWeightParam]);
}

}  // namespace

MadeOp MakeCpu(const Conv2dParams& params, const OpSetup& s) {
  const bool known_type = s.x.dtype == DType::kF32 || s.x.dtype == DType::kBf16;
  if (!known_type || (s.x != s.device.FeatureMap(s.x.shape, s.x.dtype) && s.x.layout != Layout::kNchw)) {
    return Unimplemented("conv2d ", s.options.name,
                         ": the CPU supports fp32 and bf16, plain images, and feature maps in the device's "
                         "layout");
  }
  auto op = std::make_unique<CpuConv2d>(params, s.options);
  RETURN_IF_ERROR(op->Prepare(s));
  return op;
}

}  // namespace deeper
