// The fused module. Memory layout: inception_buffer.h. Savings per step: docs/design/fused-inception.md.
//
//   Forward                                        Backward, of G = [dR2|dR3|dO1]
//   [R2|R3|O1] = relu(x W + b)       one product   dO1 -> G, dO2, dO3, dO4 = the parts of dy, joined, spread,
//   O2 = relu(conv3x3(R2) + b)                       masked and summed for the biases, in one pass
//   O3 = relu(conv5x5(R3) + b)                     dR2, dR3 -> G = masked gradients of the 3x3 and the 5x5
//   O4 = relu(maxpool(x) W4 + b)                   dx = G W, one product, and dP = dO4 W4, the gradient of
//   the
//                                                    pool. The producer of x spreads it
//                                                  dW = G^T x, one product; dW2, dW3, dW4
//
// The branches run concurrently where possible (CudaDevice::Branch), each with its own scratch memory.
//
// With batch norm the convolutions write a second such buffer, Z, and two passes compute y from it: one over
// [R2|R3|O1], one over [O2|O3|O4]. In Backward, its passes mask the gradients and store them in slices.
#pragma once

#include <memory>

#include "kernels/cuda/base/cuda_device.h"
#include "kernels/ops/conv2d/batch_norm_cuda.h"
#include "kernels/ops/inception/inception.h"
#include "kernels/ops/inception/inception_buffer.h"

namespace deeper {

class FusedInception final : public Op {
 public:
  FusedInception(const InceptionParams& params, const OpSetup& s)
      : params_(params),
        buffer_(params),
        training_(s.options.training),
        device_(AsCuda(s.device)),
        chains_{{buffer_.r2, buffer_.o2, 3, kR2, kO2, 0},
                {buffer_.r3, buffer_.o3, params.branch3_kernel, kR3, kO3, 1}} {}
  absl::Status Prepare(const OpSetup& s);
  void Bind(const OpBinding& b) override;
  void Forward() override;
  void Backward() override;

 private:
  using Pass = ConvolutionProblem::Pass;

  // The convolutions in the order of OpShape::params, named by the slices that they write.
  enum Convolution : size_t { kO1, kR2, kO2, kR3, kO3, kO4 };

  // A 1x1 convolution and the larger convolution that reads it.
  struct Chain {
    ChannelSlice in, out;  // slices of the buffer
    int64_t kernel;
    Convolution reduce, convolve;
    int branch;  // branch that it runs in, except for its weights' gradient
    std::unique_ptr<CudaPlan> forward = nullptr, backward_data = nullptr, backward_weights = nullptr;
    bool wide_bias = true;     // in the forward plan
    bool masks_dx = true;      // the plan of backward_data masks and sums the bias gradient
    void* dy = nullptr;        // dense
    void* unmasked = nullptr;  // the gradient of R, if the plan does not mask it

    // The opposite branch of the two, because branch 0 computes the gradient of x.
    int weights_branch() const { return 2 - branch; }
  };

  absl::Status PreparePool(const OpOptions& options);
  absl::Status PrepareForward();
  absl::Status PrepareBackward(const OpOptions& options);
  absl::Status PrepareForward(Chain& chain);
  absl::Status PrepareBackward(Chain& chain);
  ConvolutionProblem Problem(const Chain& chain, Pass pass) const;
  MatmulProblem Product(Pass pass, int64_t outputs) const {  // rows are pixels, of x and of the outputs
    return ProductOf(pass, needs_.x.dtype, pixels(), channels(), outputs);
  }
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
  // The address of a channel in the first pixel of the module's buffer, of x, and of G.
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
  size_t unmasked_bytes(const Chain& chain) const { return chain.masks_dx ? 0 : Bytes(chain.in.count); }
  // The channels of the buffer without padding, and the range of the outputs among them.
  int64_t width() const { return buffer_.o4.end() - buffer_.r2.first; }
  ChannelSlice outputs() const { return {buffer_.o1.first, buffer_.o4.end() - buffer_.o1.first}; }
  size_t statistics_bytes() const { return Align(static_cast<size_t>(width()) * sizeof(float)); }

  const InceptionParams params_;
  const InceptionBuffer buffer_;
  const bool training_;
  CudaDevice& device_;
  // The pool and its 1x1. Two custom kernels compute the maxima as they load the tensor core operands, where
  // they apply. Otherwise a separate pool op and matrix products.
  std::unique_ptr<CudaPlan> pooled_forward_, pooled_weights_;
  std::unique_ptr<Op> pool_;
  Chain chains_[2];
  std::unique_ptr<CudaPlan> first_, project_;  // [R2|R3|O1], O4
  std::unique_ptr<CudaPlan> dx_, dpooled_, dfirst_, dproject_;
  PooledPart pooled_dx_;
  size_t argmax_bytes_ = 0;                           // at the start of `saved`
  size_t scratch_bytes_[CudaDevice::kBranches] = {};  // for the libraries and sums

  void* z_ = nullptr;                           // the input of batch norm, or y without it
  float *mean_ = nullptr, *inverse_ = nullptr;  // batch statistics of every channel from R2 on
  void* pooled_ = nullptr;                      // maxpool(x)
  void* joined_ = nullptr;                      // dy as input of the backward pass of batch norm
  void* g_ = nullptr;
  void* do4_ = nullptr;
  void* dp_ = nullptr;
  void* scratch_[CudaDevice::kBranches] = {};
};

}  // namespace deeper
