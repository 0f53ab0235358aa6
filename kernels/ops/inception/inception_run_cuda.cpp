// Binds the fused module to its memory and runs it.
#include <utility>

#include "kernels/ops/inception/inception_cuda.h"
#include "kernels/ops/join.h"

namespace deeper {

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
  } else if (pool_ != nullptr) {
    pooled_ = take(Bytes(channels()));
  }
  for (int branch = 0; branch < CudaDevice::kBranches; ++branch)
    scratch_[branch] = take(scratch_bytes_[branch]);
  z_ = b.y;
  if (training_ && params_.batch_norm) {
    z_ = static_cast<std::byte*>(pooled_) + (pool_ != nullptr ? Bytes(channels()) : 0);
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

// Neighbouring slices. `first` is the convolution of the first slice.
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

// Joins all parts of dy, writes the result to each branch's buffer, and sums the bias gradients of all four.
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
    join.sums = binding_.grads[Bias(kO1)];  // and the neighbouring bias gradients
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

// Masks the gradient of R by its ReLU in its slice of G, and computes the gradients of its bias or its norm.
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

void FusedInception::WeightGradients(const Chain& chain) {
  const int branch = chain.weights_branch();
  device_.Branch(branch);
  chain.backward_weights->Run({.a = Y(chain.in),
                               .b = chain.dy,
                               .d = binding_.grads[Weight(chain.convolve)],
                               .workspace = scratch_[branch]});
}

// Spreads the gradient of the pool here if the op that produces x does not accept it.
void FusedInception::SpreadPoolGradient() {
  GradientJoin join;
  join.desc = needs_.dx_parts[0];
  join.parts = binding_.dx;
  join.pooled = {{pooled_dx_, dp_, static_cast<const uint8_t*>(binding_.saved)}};
  join.targets = {{channels(), binding_.dx[0], channels()}};
  JoinGradientsCuda(device_, join);
}

}  // namespace deeper
