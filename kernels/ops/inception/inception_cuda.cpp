// The fused module. Where its tensors lie: inception_buffer.h; what each step saves: docs/fused-inception.md.
//
//   Forward                                        Backward, of G = [dR2|dR3|dO1]
//   [R2|R3|O1] = relu(x W + b)       one product   dO1 -> G, dO2, dO3, dO4 = the parts of dy, joined, spread,
//   O2 = relu(conv3x3(R2) + b)                       masked and summed for the biases, in one pass
//   O3 = relu(conv5x5(R3) + b)                     dR2, dR3 -> G = masked gradients of the 3x3 and the 5x5
//   O4 = relu(maxpool(x) W4 + b)                   dx = G W, one product, and dP = dO4 W4, which whoever made
//                                                    x spreads: gradient of the pool
//                                                  dW = G^T x, one product; dW2, dW3, dW4
//
// The branches run side by side where they can (CudaDevice::Branch), each with scratch memory of its own.
//
// With batch norm the convolutions write a second such buffer, Z, and two passes go from it to y: over
// [R2|R3|O1] and over [O2|O3|O4]. Backward, its own passes mask the gradients and store them in slices.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/conv2d/batch_norm_cuda.h"
#include "kernels/ops/inception/inception.h"
#include "kernels/ops/inception/inception_buffer.h"
#include "kernels/ops/join.h"
#include "kernels/ops/ops.h"

namespace deeper {
namespace {

// The convolutions in the order of OpShape::params, by the slices that they write.
enum Convolution : size_t { kO1, kR2, kO2, kR3, kO3, kO4 };

class FusedInception final : public Op {
 public:
  FusedInception(const InceptionParams& params, const OpSetup& s)
      : params_(params), buffer_(params), training_(s.options.training), device_(AsCuda(s.device)) {}
  absl::Status Prepare(const OpSetup& s);
  void Bind(const OpBinding& b) override;
  void Forward() override;
  void Backward() override;

 private:
  using Pass = ConvolutionProblem::Pass;

  // A 1x1 convolution before a larger one, and that.
  struct Chain {
    ChannelSlice in, out;  // of the buffer
    int64_t kernel = 0;
    Convolution reduce = kR2, convolve = kO2;
    std::unique_ptr<CudaPlan> forward, backward_data, backward_weights;
    bool wide_bias = true;     // of the forward plan
    bool masks_dx = true;      // the plan of backward_data does, and sums the bias gradient
    void* dy = nullptr;        // dense
    void* unmasked = nullptr;  // the gradient of R, where the plan does not mask it
    int branch = 0;            // that it runs in, but for its weights' gradient

    void Set(const ChannelSlice& from, const ChannelSlice& to, int64_t size, Convolution before,
             Convolution after) {
      in = from, out = to, kernel = size;
      reduce = before, convolve = after;
    }
    // The other one of the two: branch 0 is busy with the gradient of x.
    int weights_branch() const { return 2 - branch; }
  };

  absl::Status PreparePool(const OpOptions& options);
  absl::Status PrepareForward();
  absl::Status PrepareBackward(const OpOptions& options);
  absl::Status PrepareForward(Chain& chain);
  absl::Status PrepareBackward(Chain& chain);
  ConvolutionProblem Problem(const Chain& chain, Pass pass) const;
  template <class LibraryProblem>
  absl::Status MakePlan(const LibraryProblem& problem, int branch, std::unique_ptr<CudaPlan>& plan);
  void Reserve(int branch, size_t bytes) {
    scratch_bytes_[branch] = std::max(scratch_bytes_[branch], Align(bytes));
  }

  void PoolAndProject();
  void Normalize(Convolution first, const ChannelSlice& slice);
  BatchNormArguments Norm(Convolution first, const ChannelSlice& slice, int branch = 0) const;
  void JoinGradients();
  void ChainGradients(const Chain& chain);
  void WeightGradients(const Chain& chain);
  void SpreadPoolGradient();

  int64_t pixels() const { return needs_.x.shape.n * needs_.x.shape.spatial(); }
  int64_t channels() const { return needs_.x.shape.c; }
  size_t element() const { return SizeOf(needs_.x.dtype); }
  size_t Bytes(int64_t channels) const { return Align(static_cast<size_t>(pixels() * channels) * element()); }
  // Address of a channel in the first pixel of the module's buffer, of x, and of G.
  void* Y(const ChannelSlice& slice) const { return At(binding_.y, slice.first); }
  void* Z(const ChannelSlice& slice) const { return At(z_, slice.first); }
  const void* X() const { return At(binding_.x, needs_.x.first); }
  void* G(const ChannelSlice& slice) const { return At(g_, slice.first - buffer_.r2.first); }
  void* At(void* base, int64_t channel) const {
    return static_cast<std::byte*>(base) + static_cast<size_t>(channel) * element();
  }
  // Indexes of parameters.
  size_t params_per_convolution() const { return params_.batch_norm ? 5 : 2; }
  size_t Weight(Convolution c) const { return c * params_per_convolution(); }
  size_t Bias(Convolution c) const { return Weight(c) + 1; }
  size_t Scale(Convolution c) const { return Weight(c) + 1; }
  size_t Shift(Convolution c) const { return Weight(c) + 2; }
  size_t narrow_gradient_bytes(const Chain& chain) const {
    return needs_.x.dtype == DType::kF32
               ? 0
               : Align(static_cast<size_t>(needs_.params[Weight(chain.convolve)].stored_elements) *
                       element());
  }
  size_t unmasked_bytes(const Chain& chain) const { return chain.masks_dx ? 0 : Bytes(chain.in.count); }
  // The buffer's channels that are no padding, and the outputs among them.
  int64_t width() const { return buffer_.o4.end() - buffer_.r2.first; }
  ChannelSlice outputs() const { return {buffer_.o1.first, buffer_.o4.end() - buffer_.o1.first}; }
  bool keeps_pooled() const { return pool_ != nullptr; }
  size_t statistics_bytes() const { return Align(static_cast<size_t>(width()) * sizeof(float)); }

  const InceptionParams params_;
  const InceptionBuffer buffer_;
  const bool training_;
  CudaDevice& device_;
  // The pool and its 1x1: two kernels of ours that take the maxima on the way to the tensor cores, where they
  // apply; else an op of its own and products.
  std::unique_ptr<CudaPlan> pooled_forward_, pooled_weights_;
  std::unique_ptr<Op> pool_;
  Chain chains_[2];
  std::unique_ptr<CudaPlan> first_, project_;  // [R2|R3|O1], O4
  std::unique_ptr<CudaPlan> dx_, dpooled_, dfirst_, dproject_;
  PooledPart pooled_dx_;
  size_t argmax_bytes_ = 0;                           // of `saved`, at its beginning
  size_t scratch_bytes_[CudaDevice::kBranches] = {};  // of the libraries, and of sums

  void* z_ = nullptr;                           // before batch norm, or y
  float *mean_ = nullptr, *inverse_ = nullptr;  // of the batch, of every channel from R2 on
  void* pooled_ = nullptr;                      // maxpool(x)
  void* joined_ = nullptr;                      // dy, before the backward pass of batch norm
  void* g_ = nullptr;
  void* do4_ = nullptr;
  void* dp_ = nullptr;
  void* scratch_[CudaDevice::kBranches] = {};
};

absl::Status FusedInception::Prepare(const OpSetup& s) {
  needs_.x = s.x;
  needs_.y = buffer_.Output(s.x);
  needs_.backward_reads_x = needs_.backward_reads_y = training_;
  needs_.takes_pooled_gradients = training_;
  for (const ParamSpec& spec : s.shape.params) {
    needs_.params.push_back(spec.role == ParamRole::kWeight ? MakeChannelsLastLayout(spec, 1)
                                                            : MakeParamLayout(spec, 1));
  }
  needs_.adjacent_params = {{Weight(kR2), Weight(kR3), Weight(kO1)}};
  for (size_t v = 1; v < params_per_convolution(); ++v) {
    auto& run = needs_.adjacent_params.emplace_back();
    for (const Convolution c : {kR2, kR3, kO1, kO2, kO3, kO4}) run.push_back(Weight(c) + v);
  }
  chains_[0].Set(buffer_.r2, buffer_.o2, 3, kR2, kO2);
  chains_[1].Set(buffer_.r3, buffer_.o3, params_.branch3_kernel, kR3, kO3);
  chains_[1].branch = 1;

  RETURN_IF_ERROR(PreparePool(s.options));
  RETURN_IF_ERROR(PrepareForward());
  if (training_) RETURN_IF_ERROR(PrepareBackward(s.options));

  const size_t pooled = keeps_pooled() ? Bytes(channels()) : 0;
  if (training_) {
    needs_.saved_bytes = argmax_bytes_ + pooled;
    if (params_.batch_norm) needs_.saved_bytes += Align(needs_.y.bytes()) + 2 * statistics_bytes();
    needs_.workspace_bytes = Bytes(buffer_.first_width()) + Bytes(params_.c2) + Bytes(params_.c3) +
                             Bytes(params_.c4) + unmasked_bytes(chains_[0]) + unmasked_bytes(chains_[1]) +
                             (needs_.pooled_dx.has_value() ? 0 : Bytes(channels())) +
                             (params_.batch_norm ? Bytes(outputs().count) : 0);
  } else {
    needs_.workspace_bytes = pooled;
  }
  for (const size_t bytes : scratch_bytes_) needs_.workspace_bytes += bytes;
  return absl::OkStatus();
}

absl::Status FusedInception::PreparePool(const OpOptions& options) {
  const Shape& x = needs_.x.shape;
  pooled_dx_ = {needs_.x.Dense(), kInceptionPool.kernel, kInceptionPool.stride, kInceptionPool.pad};
  if (training_ && options.want_dx) argmax_bytes_ = Align(static_cast<size_t>(x.elements()));
  ConvolutionProblem p = {.pass = Pass::kForward, .dtype = needs_.x.dtype, .n = x.n, .h = x.h, .w = x.w};
  p.c = x.c;
  p.k = params_.c4;
  p.pool_x = true;
  p.x_pitch = needs_.x.pixel_pitch();
  p.y_pitch = buffer_.pitch;
  p.bias = p.relu = !params_.batch_norm;
  absl::Status status = MakePlan(p, 2, pooled_forward_);
  if (status.ok() && training_) {
    p.pass = Pass::kBackwardWeights;
    p.y_pitch = 0;
    p.bias = p.relu = false;
    status = MakePlan(p, 2, pooled_weights_);
  }
  if (!absl::IsUnimplemented(status)) return status;
  pooled_forward_ = nullptr;
  OpOptions inner = options;
  inner.x_takes_pooled_gradients = true;
  inner.fuse = false;
  ASSIGN_OR_RETURN(pool_, MakeOp(kInceptionPool, needs_.x, inner, device_));
  return absl::OkStatus();
}

template <class LibraryProblem>
absl::Status FusedInception::MakePlan(const LibraryProblem& problem, int branch,
                                      std::unique_ptr<CudaPlan>& plan) {
  ASSIGN_OR_RETURN(plan, device_.Plan(problem));
  Reserve(branch, plan->workspace_bytes());
  return absl::OkStatus();
}

ConvolutionProblem FusedInception::Problem(const Chain& chain, Pass pass) const {
  const Shape& x = needs_.x.shape;
  ConvolutionProblem p = {.pass = pass, .dtype = needs_.x.dtype, .n = x.n, .h = x.h, .w = x.w};
  p.c = chain.in.count;
  p.k = chain.out.count;
  p.kernel = chain.kernel;
  p.pad = chain.kernel / 2;
  p.x_pitch = buffer_.pitch;
  return p;
}

// cuDNN writes slices without a copy only where the bias is fp32; the engines for a narrow one are more.
absl::Status FusedInception::PrepareForward(Chain& chain) {
  ConvolutionProblem p = Problem(chain, Pass::kForward);
  p.y_pitch = buffer_.pitch;
  p.bias = p.relu = p.wide_bias = !params_.batch_norm;
  absl::Status status = MakePlan(p, chain.branch, chain.forward);
  if (!absl::IsUnimplemented(status) || params_.batch_norm) return status;
  chain.wide_bias = p.wide_bias = false;
  return MakePlan(p, chain.branch, chain.forward);
}

absl::Status FusedInception::PrepareForward() {
  // Rows are pixels: [R2|R3|O1] = x W^T, O4 = pooled W4^T.
  MatmulProblem p = {.m = pixels(), .n = buffer_.first_width(), .k = channels()};
  p.in = p.out = needs_.x.dtype;
  p.transpose_b = true;
  p.bias = p.relu = !params_.batch_norm;
  p.a_stride = needs_.x.pixel_pitch(), p.b_stride = channels(), p.d_stride = buffer_.pitch;
  absl::Status status = MakePlan(p, 0, first_);
  if (pool_ != nullptr) {
    p.n = params_.c4;
    p.a_stride = channels();
    status.Update(MakePlan(p, 2, project_));
  }
  for (Chain& chain : chains_) status.Update(PrepareForward(chain));
  if (params_.batch_norm) {
    const TensorDesc widest = buffer_.Desc({buffer_.r2.first, width()}, needs_.x);
    for (const int branch : {0, 1}) Reserve(branch, BatchNormWorkspaceBytes(widest));
  }
  return status;
}

absl::Status FusedInception::PrepareBackward(Chain& chain) {
  ConvolutionProblem p = Problem(chain, Pass::kBackwardData);
  p.x_pitch = buffer_.first_width();
  p.mask_dx = true;
  p.mask_pitch = buffer_.pitch;
  absl::Status status = absl::UnimplementedError("batch norm masks by itself");
  if (!params_.batch_norm) status = MakePlan(p, chain.branch, chain.backward_data);
  if (absl::IsUnimplemented(status)) {
    chain.masks_dx = p.mask_dx = false;
    p.x_pitch = p.mask_pitch = 0;
    status = MakePlan(p, chain.branch, chain.backward_data);
  }
  const int branch = chain.weights_branch();
  status.Update(MakePlan(Problem(chain, Pass::kBackwardWeights), branch, chain.backward_weights));
  if (!status.ok()) return status;
  Reserve(branch, narrow_gradient_bytes(chain) + chain.backward_weights->workspace_bytes());
  Reserve(chain.branch, JoinWorkspaceBytes(buffer_.Desc(chain.in, needs_.x)));
  return absl::OkStatus();
}

absl::Status FusedInception::PrepareBackward(const OpOptions& options) {
  Reserve(0, JoinWorkspaceBytes(needs_.y));
  absl::Status status;
  for (Chain& chain : chains_) status.Update(PrepareBackward(chain));
  // dW = G^T x, dW4 = dO4^T pooled.
  MatmulProblem dw = {.m = buffer_.first_width(), .n = channels(), .k = pixels()};
  dw.in = needs_.x.dtype;
  dw.out = DType::kF32;
  dw.transpose_a = true;
  dw.a_stride = dw.m, dw.b_stride = needs_.x.pixel_pitch(), dw.d_stride = channels();
  status.Update(MakePlan(dw, 1, dfirst_));
  if (pool_ != nullptr) {
    dw.m = dw.a_stride = params_.c4;
    dw.b_stride = channels();
    status.Update(MakePlan(dw, 2, dproject_));
  }
  if (!options.want_dx) return status;
  // dx = G W, dP = dO4 W4.
  MatmulProblem dx = {.m = pixels(), .n = channels(), .k = buffer_.first_width()};
  dx.in = dx.out = needs_.x.dtype;
  dx.a_stride = dx.k, dx.b_stride = dx.d_stride = channels();
  status.Update(MakePlan(dx, 0, dx_));
  dx.k = dx.a_stride = params_.c4;
  status.Update(MakePlan(dx, 2, dpooled_));
  needs_.dx_parts = {needs_.x.Dense()};
  if (options.x_takes_pooled_gradients) needs_.pooled_dx = pooled_dx_;
  return status;
}

void FusedInception::Bind(const OpBinding& b) {
  Op::Bind(b);
  auto* next = static_cast<std::byte*>(b.workspace);
  const auto take = [&](size_t bytes) { return std::exchange(next, next + bytes); };
  if (training_) {
    pooled_ = static_cast<std::byte*>(b.saved) + argmax_bytes_;
    g_ = take(Bytes(buffer_.first_width()));
    for (Chain& chain : chains_) {
      chain.dy = take(Bytes(chain.out.count));
      chain.unmasked = take(unmasked_bytes(chain));
    }
    do4_ = take(Bytes(params_.c4));
    dp_ = needs_.pooled_dx.has_value() ? b.pooled_dx : take(Bytes(channels()));
    if (params_.batch_norm) joined_ = take(Bytes(outputs().count));
  } else if (keeps_pooled()) {
    pooled_ = take(Bytes(channels()));
  }
  for (int branch = 0; branch < CudaDevice::kBranches; ++branch)
    scratch_[branch] = take(scratch_bytes_[branch]);
  z_ = b.y;
  if (training_ && params_.batch_norm) {
    z_ = static_cast<std::byte*>(pooled_) + (keeps_pooled() ? Bytes(channels()) : 0);
    std::byte* const statistics = static_cast<std::byte*>(z_) + Align(needs_.y.bytes());
    mean_ = reinterpret_cast<float*>(statistics);
    inverse_ = reinterpret_cast<float*>(statistics + statistics_bytes());
  }

  if (pool_ == nullptr) return;
  OpBinding pool;
  pool.x = b.x;
  pool.y = pooled_;
  pool.saved = b.saved;
  pool_->Bind(pool);
}

void FusedInception::Forward() {
  const bool bias = !params_.batch_norm;
  device_.Fork();
  device_.Branch(2);
  PoolAndProject();
  device_.Branch(0);
  first_->Run({.a = X(),
               .b = Param(Weight(kR2)),
               .d = Z(buffer_.r2),
               .workspace = scratch_[0],
               .bias = bias ? Param(Bias(kR2)) : nullptr});
  if (params_.batch_norm) Normalize(kR2, {buffer_.r2.first, buffer_.first_width()});
  device_.Fork();
  for (const Chain& chain : chains_) {
    device_.Branch(chain.branch);
    const size_t i = Bias(chain.convolve);
    chain.forward->Run({.a = Y(chain.in),
                        .b = Param(Weight(chain.convolve)),
                        .d = Z(chain.out),
                        .workspace = scratch_[chain.branch],
                        .bias = !bias             ? nullptr
                                : chain.wide_bias ? binding_.params[i]
                                                  : Param(i)});
  }
  device_.Join();
  if (params_.batch_norm) Normalize(kO2, {buffer_.o2.first, buffer_.o4.end() - buffer_.o2.first});
}

void FusedInception::PoolAndProject() {
  PlanOperands o = {.a = X(), .b = Param(Weight(kO4)), .d = Z(buffer_.o4), .workspace = scratch_[2]};
  if (!params_.batch_norm) o.bias = Param(Bias(kO4));
  if (pooled_forward_ != nullptr) {
    o.argmax = argmax_bytes_ > 0 ? static_cast<uint8_t*>(binding_.saved) : nullptr;
    return pooled_forward_->Run(o);
  }
  pool_->Forward();
  o.a = pooled_;
  project_->Run(o);
}

// Neighbouring slices, of which `first` is the convolution of the first one.
BatchNormArguments FusedInception::Norm(Convolution first, const ChannelSlice& slice, int branch) const {
  BatchNormArguments a;
  a.x_desc = a.y_desc = buffer_.Desc(slice, needs_.x);
  a.relu = true;
  a.scale = binding_.params[Scale(first)];
  a.shift = binding_.params[Shift(first)];
  a.x = z_;
  a.y = binding_.y;
  a.workspace = scratch_[branch];
  if (!training_) return a;
  a.mean = mean_ + (slice.first - buffer_.r2.first);
  a.inverse = inverse_ + (slice.first - buffer_.r2.first);
  return a;
}

void FusedInception::Normalize(Convolution first, const ChannelSlice& slice) {
  const size_t mean = Weight(first) + 3, variance = Weight(first) + 4;
  BatchNormForwardCuda(device_, params_.norm, Norm(first, slice), binding_.params[mean],
                       binding_.params[variance]);
}

void FusedInception::Backward() {
  JoinGradients();
  device_.Fork();
  for (const Chain& chain : chains_) ChainGradients(chain);
  device_.Branch(2);
  float* const dw4 = binding_.grads[Weight(kO4)];
  if (pooled_weights_ != nullptr) {
    pooled_weights_->Run({.a = X(), .b = do4_, .d = dw4, .workspace = scratch_[2]});
  } else {
    dproject_->Run({.a = do4_, .b = pooled_, .d = dw4, .workspace = scratch_[2]});
  }
  if (dpooled_ != nullptr)
    dpooled_->Run({.a = do4_, .b = Param(Weight(kO4)), .d = dp_, .workspace = scratch_[2]});
  device_.Join();  // G is complete
  device_.Fork();
  device_.Branch(0);
  if (dx_ != nullptr)
    dx_->Run({.a = g_, .b = Param(Weight(kR2)), .d = binding_.dx[0], .workspace = scratch_[0]});
  device_.Branch(1);
  dfirst_->Run({.a = g_, .b = X(), .d = binding_.grads[Weight(kR2)], .workspace = scratch_[1]});
  for (const Chain& chain : chains_) WeightGradients(chain);
  device_.Join();
  if (dx_ != nullptr && !needs_.pooled_dx.has_value()) SpreadPoolGradient();
}

// dy, from all its parts, to where each branch wants it, and the bias gradients of all four.
void FusedInception::JoinGradients() {
  const std::vector<ChannelTarget> branches = {{params_.c1, G(buffer_.o1), buffer_.first_width()},
                                               {params_.c2, chains_[0].dy, params_.c2},
                                               {params_.c3, chains_[1].dy, params_.c3},
                                               {params_.c4, do4_, params_.c4}};
  GradientJoin join;
  join.desc = needs_.y;
  join.parts = binding_.dy;
  join.pooled = binding_.pooled_dy;
  join.workspace = scratch_[0];
  if (!params_.batch_norm) {
    if (!params_.dy_is_masked) join.y = binding_.y;
    join.targets = branches;
    join.sums = binding_.grads[Bias(kO1)];  // and those of its neighbours
    return JoinGradientsCuda(device_, join);
  }
  void* dy = joined_;
  if (binding_.dy.size() == 1 && binding_.pooled_dy.empty()) {
    dy = binding_.dy[0];
  } else {
    join.targets = {{outputs().count, joined_, outputs().count}};
    JoinGradientsCuda(device_, join);
  }
  BatchNormBackwardCuda(device_, Norm(kO1, outputs()), {dy, needs_.y.Dense()}, branches,
                        binding_.grads[Scale(kO1)], binding_.grads[Shift(kO1)]);
}

// The gradient of R, masked by its ReLU, in its slice of G, and the gradients of its bias or of its norm.
void FusedInception::ChainGradients(const Chain& chain) {
  device_.Branch(chain.branch);
  chain.backward_data->Run({.a = chain.dy,
                            .b = Param(Weight(chain.convolve)),
                            .d = chain.masks_dx ? G(chain.in) : chain.unmasked,
                            .workspace = scratch_[chain.branch],
                            .mask = Y(chain.in),
                            .sums = binding_.grads[Bias(chain.reduce)]});
  if (chain.masks_dx) return;
  const TensorDesc r = buffer_.Desc(chain.in, needs_.x);
  const std::vector<ChannelTarget> target = {{chain.in.count, G(chain.in), buffer_.first_width()}};
  if (params_.batch_norm) {
    return BatchNormBackwardCuda(device_, Norm(chain.reduce, chain.in, chain.branch),
                                 {chain.unmasked, r.Dense()}, target, binding_.grads[Scale(chain.reduce)],
                                 binding_.grads[Shift(chain.reduce)]);
  }
  GradientJoin join;
  join.desc = r;
  join.parts = {chain.unmasked};
  join.y = binding_.y;
  join.targets = target;
  join.sums = binding_.grads[Bias(chain.reduce)];
  join.workspace = scratch_[chain.branch];
  JoinGradientsCuda(device_, join);
}

// cuDNN gives weight gradients in the type of the activations.
void FusedInception::WeightGradients(const Chain& chain) {
  const int branch = chain.weights_branch();
  device_.Branch(branch);
  float* const gradient = binding_.grads[Weight(chain.convolve)];
  const size_t narrow = narrow_gradient_bytes(chain);
  void* const out = narrow > 0 ? scratch_[branch] : gradient;
  void* const library = static_cast<std::byte*>(scratch_[branch]) + narrow;
  chain.backward_weights->Run({.a = Y(chain.in), .b = chain.dy, .d = out, .workspace = library});
  if (narrow > 0) WidenCuda(device_, out, gradient, needs_.params[Weight(chain.convolve)].stored_elements);
}

// For who made x and does not.
void FusedInception::SpreadPoolGradient() {
  GradientJoin join;
  join.desc = needs_.dx_parts[0];
  join.parts = binding_.dx;
  join.pooled = {{pooled_dx_, dp_, static_cast<const uint8_t*>(binding_.saved)}};
  join.targets = {{channels(), binding_.dx[0], channels()}};
  JoinGradientsCuda(device_, join);
}

// Unimplemented where it does not fit: the branch ops do.
MadeOp MakeFused(const InceptionParams& p, const OpSetup& s) {
  constexpr int64_t kUnit = 8;
  for (const int64_t n : {s.x.shape.c, p.c1, p.c2_reduce, p.c2, p.c3_reduce, p.c3, p.c4}) {
    if (n > 0 && n % kUnit == 0) continue;
    return absl::UnimplementedError(absl::StrCat(
        "inception ", s.options.name, ": fused kernels are for modules with all four branches, of ",
        "multiples of ", kUnit, " channels"));
  }
  auto op = std::make_unique<FusedInception>(p, s);
  RETURN_IF_ERROR(op->Prepare(s));
  return op;
}

}  // namespace

MadeOp MakeCuda(const InceptionParams& params, const OpSetup& setup) {
  auto fused = setup.options.fuse ? MakeFused(params, setup) : absl::UnimplementedError("not wanted");
  return absl::IsUnimplemented(fused.status()) ? MakeInceptionBranches(params, setup) : std::move(fused);
}

}  // namespace deeper
