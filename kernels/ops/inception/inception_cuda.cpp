// Prepares the fused module: its plans and their memory requirements.
#include "kernels/ops/inception/inception_cuda.h"

#include <algorithm>

#include "kernels/base/status.h"
#include "kernels/ops/join.h"
#include "kernels/ops/ops.h"

namespace deeper {

absl::Status FusedInception::Prepare(const OpSetup& s) {
  needs_.x = s.x;
  needs_.y = buffer_.Output(s.x);
  needs_.backward_reads_x = needs_.backward_reads_y = training_;
  needs_.takes_pooled_gradients = training_;
  for (const ParamSpec& spec : s.shape.params) needs_.params.push_back(MakeChannelsLastLayout(spec, 1));
  needs_.adjacent_params = {{Weight(kR2), Weight(kR3), Weight(kO1)}};
  for (size_t v = 1; v < params_per_convolution(); ++v) {
    auto& run = needs_.adjacent_params.emplace_back();
    for (const Convolution c : {kR2, kR3, kO1, kO2, kO3, kO4}) run.push_back(Weight(c) + v);
  }
  RETURN_IF_ERROR(PreparePool(s.options));
  RETURN_IF_ERROR(PrepareForward());
  if (training_) RETURN_IF_ERROR(PrepareBackward(s.options));

  const size_t pooled = pool_ != nullptr ? Bytes(channels()) : 0;
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
  p.wide_dw = pass == Pass::kBackwardWeights && p.dtype != DType::kF32;
  return p;
}

// Without a copy, cuDNN writes slices only if the bias is fp32. A narrow bias has more engines.
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
  MatmulProblem p = Product(Pass::kForward, buffer_.first_width());
  p.bias = p.relu = !params_.batch_norm;
  p.a_stride = needs_.x.pixel_pitch(), p.d_stride = buffer_.pitch;
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
  absl::Status status = Unimplemented("batch norm applies the mask");
  if (!params_.batch_norm) status = MakePlan(p, chain.branch, chain.backward_data);
  if (absl::IsUnimplemented(status)) {
    chain.masks_dx = p.mask_dx = false;
    p.x_pitch = p.mask_pitch = 0;
    status = MakePlan(p, chain.branch, chain.backward_data);
  }
  status.Update(
      MakePlan(Problem(chain, Pass::kBackwardWeights), chain.weights_branch(), chain.backward_weights));
  if (!status.ok()) return status;
  Reserve(chain.branch, JoinWorkspaceBytes(buffer_.Desc(chain.in, needs_.x)));
  return absl::OkStatus();
}

absl::Status FusedInception::PrepareBackward(const OpOptions& options) {
  Reserve(0, JoinWorkspaceBytes(needs_.y));
  absl::Status status;
  for (Chain& chain : chains_) status.Update(PrepareBackward(chain));
  // dW = G^T x, dW4 = dO4^T pooled.
  MatmulProblem dw = Product(Pass::kBackwardWeights, buffer_.first_width());
  dw.b_stride = needs_.x.pixel_pitch();
  status.Update(MakePlan(dw, 1, dfirst_));
  if (pool_ != nullptr) status.Update(MakePlan(Product(Pass::kBackwardWeights, params_.c4), 2, dproject_));
  if (!options.want_dx) return status;
  // dx = G W, dP = dO4 W4.
  status.Update(MakePlan(Product(Pass::kBackwardData, buffer_.first_width()), 0, dx_));
  status.Update(MakePlan(Product(Pass::kBackwardData, params_.c4), 2, dpooled_));
  needs_.dx_parts = {needs_.x.Dense()};
  if (options.x_takes_pooled_gradients) needs_.pooled_dx = pooled_dx_;
  return status;
}

namespace {

// Returns Unimplemented if the module cannot be fused; MakeCuda then uses the branch ops.
MadeOp MakeFused(const InceptionParams& p, const OpSetup& s) {
  constexpr int64_t kUnit = 8;
  for (const int64_t n : {s.x.shape.c, p.c1, p.c2_reduce, p.c2, p.c3_reduce, p.c3, p.c4}) {
    if (n > 0 && n % kUnit == 0) continue;
    return Unimplemented("inception ", s.options.name, ": fused kernels need all four branches, with ",
                         "multiples of ", kUnit, " channels");
  }
  auto op = std::make_unique<FusedInception>(p, s);
  RETURN_IF_ERROR(op->Prepare(s));
  return op;
}

}  // namespace

MadeOp MakeCuda(const InceptionParams& params, const OpSetup& setup) {
  const bool fuse = setup.options.fuse && !setup.options.sum_over_ranks;  // sums are for the device's stream
  auto fused = fuse ? MakeFused(params, setup) : Unimplemented("fusing is off");
  return absl::IsUnimplemented(fused.status()) ? MakeInceptionBranches(params, setup) : std::move(fused);
}

}  // namespace deeper
