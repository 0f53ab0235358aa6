// Convolutions through cuDNN. A 1x1 convolution is a matrix product through cuBLASLt. The forward call
// includes bias and ReLU. One custom pass applies the ReLU mask and sums the bias gradient before the two
// backward calls. With Conv2dParams::max_pool there is one call each way (ConvolutionProblem::pool_y).
#include <algorithm>
#include <utility>

#include "kernels/base/status.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/conv2d/batch_norm_cuda.h"
#include "kernels/ops/conv2d/conv2d.h"
#include "kernels/ops/join.h"

namespace deeper {
namespace {

enum { kWeight = 0, kBias = 1, kScale = 1, kShift = 2, kMean = 3, kVariance = 4 };

class CudaConv2d final : public Op {
 public:
  CudaConv2d(const Conv2dParams& params, const OpSetup& s)
      : params_(params), training_(s.options.training), device_(AsCuda(s.device)) {
    if (training_ && params.batch_norm) ranks_.sum = s.options.sum_over_ranks;
  }

  absl::Status Prepare(const OpSetup& s);
  void Bind(const OpBinding& b) override;
  void Forward() override;
  void Backward() override;

 private:
  using Pass = ConvolutionProblem::Pass;

  absl::Status PreparePlan(Pass pass, std::unique_ptr<CudaPlan>& plan);
  MatmulProblem Product(Pass pass) const;
  // What batch norm saves for Backward follows the convolution's output.
  BatchNormArguments Norm(void* z) const;

  bool pointwise() const { return params_.kernel == 1 && params_.stride == 1 && params_.pad == 0; }
  // With batch norm, its backward pass applies the ReLU mask. With the pool, the positions of its maxima do.
  bool masks_dy() const {
    return params_.relu && !params_.dy_is_masked && !params_.batch_norm && !params_.max_pool;
  }
  size_t statistics_bytes() const { return Align(static_cast<size_t>(params_.out_channels) * sizeof(float)); }
  const void* X() const {
    return static_cast<const std::byte*>(binding_.x) +
           static_cast<size_t>(needs_.x.first) * SizeOf(needs_.x.dtype);
  }
  int64_t PitchOfX() const {
    return needs_.x.layout == Layout::kNhwc ? needs_.x.pixel_pitch() : needs_.x.padded_channels();
  }
  size_t rank_sums_bytes() const {
    return ranks_.sum ? Align(static_cast<size_t>(RankSums(params_.out_channels)) * sizeof(double)) : 0;
  }
  std::byte* workspace() const { return static_cast<std::byte*>(binding_.workspace); }

  const Conv2dParams params_;
  const bool training_;
  CudaDevice& device_;
  RankStatistics ranks_;  // of batch norm; without `sum`: of this rank only
  void* dy_ = nullptr;
  std::unique_ptr<CudaPlan> forward_, backward_data_, backward_weights_;
};

absl::Status CudaConv2d::Prepare(const OpSetup& s) {
  const TensorDesc& x = s.x;
  needs_ = s.Needs(device_.FeatureMap(s.shape.y, x.dtype));
  for (const ParamSpec& spec : s.shape.params) needs_.params.push_back(MakeChannelsLastLayout(spec, x.block));
  needs_.backward_reads_x = training_;
  needs_.backward_reads_y = training_ && masks_dy();
  needs_.takes_pooled_gradients = training_ && s.options.fuse && !params_.max_pool;
  if (training_ && params_.max_pool)
    needs_.saved_bytes = static_cast<size_t>(needs_.y.stored_elements());  // the argmax

  absl::Status status = PreparePlan(Pass::kForward, forward_);
  if (status.ok() && training_) {
    status.Update(PreparePlan(Pass::kBackwardWeights, backward_weights_));
    if (s.options.want_dx) status.Update(PreparePlan(Pass::kBackwardData, backward_data_));
    needs_.workspace_bytes = std::max(needs_.workspace_bytes, JoinWorkspaceBytes(needs_.y));
  }
  if (params_.batch_norm) {
    needs_.workspace_bytes = std::max(needs_.workspace_bytes, BatchNormWorkspaceBytes(needs_.y));
    if (training_) needs_.saved_bytes = Align(needs_.y.bytes()) + 2 * statistics_bytes() + rank_sums_bytes();
  }
  if (needs_.takes_pooled_gradients) needs_.workspace_bytes += Align(needs_.y.bytes());
  return status;
}

void CudaConv2d::Bind(const OpBinding& b) {
  Op::Bind(b);
  if (!training_) return;
  // All of dy is in the memory of other ops. If there is no dense dy, because the gradient comes from a pool,
  // the workspace holds it.
  dy_ = b.dy.empty() ? b.workspace : b.dy[0];
  if (needs_.takes_pooled_gradients) binding_.workspace = workspace() + Align(needs_.y.bytes());
  if (!ranks_.sum) return;
  ranks_.step = b.step;
  ranks_.sums = reinterpret_cast<double*>(static_cast<std::byte*>(b.saved) + Align(needs_.y.bytes()) +
                                          2 * statistics_bytes());
}

absl::Status CudaConv2d::PreparePlan(Pass pass, std::unique_ptr<CudaPlan>& plan) {
  if (pointwise()) {
    ASSIGN_OR_RETURN(plan, device_.Plan(Product(pass)));
  } else {
    const Shape& x = needs_.x.shape;
    const bool fused = pass == Pass::kForward && !params_.batch_norm;
    const bool narrow = needs_.x.dtype != DType::kF32 && !params_.max_pool;
    ASSIGN_OR_RETURN(plan,
                     device_.Plan(ConvolutionProblem{.pass = pass,
                                                     .dtype = needs_.x.dtype,
                                                     .n = x.n,
                                                     .h = x.h,
                                                     .w = x.w,
                                                     .c = needs_.x.padded_channels(),
                                                     .k = params_.out_channels,
                                                     .kernel = params_.kernel,
                                                     .stride = params_.stride,
                                                     .pad = params_.pad,
                                                     .x_pitch = pass == Pass::kBackwardData ? 0 : PitchOfX(),
                                                     .bias = fused,
                                                     .relu = fused && params_.relu,
                                                     .pool_y = params_.max_pool,
                                                     .wide_dw = narrow && pass == Pass::kBackwardWeights}));
  }
  needs_.workspace_bytes = std::max(needs_.workspace_bytes, plan->workspace_bytes());
  return absl::OkStatus();
}

// Rows are pixels.
MatmulProblem CudaConv2d::Product(Pass pass) const {
  MatmulProblem p = ProductOf(pass, needs_.x.dtype, needs_.y.shape.n * needs_.y.shape.spatial(),
                              needs_.x.padded_channels(), params_.out_channels);
  if (pass == Pass::kForward) {
    p.a_stride = PitchOfX();
    p.bias = !params_.batch_norm;
    p.relu = p.bias && params_.relu;
  }
  if (pass == Pass::kBackwardWeights) p.b_stride = PitchOfX();
  return p;
}

BatchNormArguments CudaConv2d::Norm(void* z) const {
  BatchNormArguments a;
  a.x_desc = a.y_desc = needs_.y;
  a.relu = params_.relu;
  a.scale = binding_.params[kScale];
  a.shift = binding_.params[kShift];
  a.x = z;
  a.y = binding_.y;
  a.workspace = binding_.workspace;
  if (!training_) return a;
  std::byte* const statistics = static_cast<std::byte*>(binding_.saved) + Align(needs_.y.bytes());
  a.mean = reinterpret_cast<float*>(statistics);
  a.inverse = reinterpret_cast<float*>(statistics + statistics_bytes());
  if (ranks_.sum) a.ranks = &ranks_;
  return a;
}

void CudaConv2d::Forward() {
  void* const z = params_.batch_norm && training_ ? binding_.saved : binding_.y;
  forward_->Run({.a = X(),
                 .b = Param(kWeight),
                 .d = z,
                 .workspace = binding_.workspace,
                 .bias = params_.batch_norm ? nullptr : Param(kBias),
                 .argmax = params_.max_pool ? static_cast<uint8_t*>(binding_.saved) : nullptr});
  if (!params_.batch_norm) return;
  BatchNormForwardCuda(device_, params_.norm, Norm(z), binding_.params[kMean], binding_.params[kVariance]);
}

void CudaConv2d::Backward() {
  void* const dy = dy_;
  if (params_.max_pool) {
    JoinGradientsCuda(device_, binding_.dy, nullptr, needs_.y, dy);  // nothing for one part
    return backward_weights_->Run({.a = X(),
                                   .b = dy,
                                   .d = binding_.grads[kWeight],
                                   .workspace = workspace(),
                                   .sums = binding_.grads[kBias],
                                   .argmax = static_cast<uint8_t*>(binding_.saved)});
  }
  JoinGradientsCuda(device_, {.desc = needs_.y,
                              .parts = binding_.dy,
                              .pooled = binding_.pooled_dy,
                              .y = masks_dy() ? binding_.y : nullptr,
                              .targets = {{needs_.y.shape.c, dy, needs_.y.shape.c}},
                              .sums = params_.batch_norm ? nullptr : binding_.grads[kBias],
                              .workspace = binding_.workspace});
  if (params_.batch_norm)
    BatchNormBackwardCuda(device_, Norm(binding_.saved), {dy, needs_.y},
                          {{needs_.y.shape.c, dy, needs_.y.shape.c}}, binding_.grads[kScale],
                          binding_.grads[kShift]);
  if (backward_data_ != nullptr)
    backward_data_->Run({.a = dy, .b = Param(kWeight), .d = binding_.dx[0], .workspace = binding_.workspace});
  float* const weight_gradient = binding_.grads[kWeight];
  if (pointwise()) {
    backward_weights_->Run({.a = dy, .b = X(), .d = weight_gradient, .workspace = workspace()});
  } else {
    backward_weights_->Run({.a = X(), .b = dy, .d = weight_gradient, .workspace = workspace()});
  }
}

}  // namespace

MadeOp MakeCuda(const Conv2dParams& params, const OpSetup& s) {
  const TensorDesc& x = s.x;
  const bool images = x == s.device.Images(x.shape, x.dtype) && x.shape.c <= x.block;
  if ((x.dtype != DType::kF32 && x.dtype != DType::kBf16) ||
      (!images && x.Dense() != s.device.FeatureMap(x.shape, x.dtype))) {
    return Unimplemented("conv2d ", s.options.name, ": no CUDA kernel for ", NameOf(x.dtype), " ",
                         x.shape.ToString(), " in this layout");
  }
  auto op = std::make_unique<CudaConv2d>(params, s);
  RETURN_IF_ERROR(op->Prepare(s));
  return op;
}

}  // namespace deeper
