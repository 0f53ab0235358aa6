// The building blocks of CUDA ops: custom kernels, which are functors over an index space (cuda_for_each.h),
// and plans. A plan is a prepared call of cuDNN, cuBLASLt or a custom tensor core kernel
// (conv_tensor_core.h).
//
// A CudaDevice has one of three modes. kGpu runs on a GPU. kHost runs the functors on host memory and
// replaces the libraries by naive loops; tests use it to check a CUDA network without a GPU, except its
// library calls (tests/kernels/host_cuda.cpp). kPlan enqueues nothing and counts what a step would enqueue;
// `describe --device=cuda` gets launches and bytes from it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/tensor.h"
#include "kernels/cuda/base/kernel_cost.h"

namespace deeper {

// y = relu(conv(x, w) + bias), or one of its gradients: x [N,H,W,C], w [K,kernel,kernel,C], y [N,OH,OW,K]. C
// includes padding channels. All have type `dtype`; accumulation and bias addition in fp32. x and y, or their
// gradients, may be slices of the channels of wider tensors; w is dense.
struct ConvolutionProblem {
  enum class Pass : uint8_t { kForward, kBackwardData, kBackwardWeights };
  Pass pass = Pass::kForward;
  DType dtype = DType::kBf16;
  int64_t n = 1, h = 1, w = 1, c = 1;  // x
  int64_t k = 1, kernel = 1, stride = 1, pad = 0;
  int64_t x_pitch = 0, y_pitch = 0;  // elements from pixel to pixel of x and y; 0: dense
  bool bias = false, relu = false;   // forward only; bias is [K] of type dtype
  bool wide_bias = false;            // bias is fp32 for every dtype
  // Backward data only: dx is 0 where x, the output of a ReLU, is not positive. sums[c] = sum over pixels of
  // dx, fp32, in a fixed order. The mask operand is x, with its own pitch.
  bool mask_dx = false;
  int64_t mask_pitch = 0;
  // Forward and backward weights of a 1x1 of stride 1 in bf16: the convolution reads max pool 3x3, stride 1,
  // pad 1, of x. The pooled tensor is never written. Forward writes the positions of the maxima if requested.
  // dw is fp32.
  bool pool_x = false;
  // Forward with ReLU, in bf16: y is max pool 3x3, stride 2, pad 1, of the output of the convolution, which
  // is never written. Writes the positions of the maxima if requested. Backward weights: dy is that of this
  // y. It reads the positions and also writes sums, the gradient of the bias. dw is fp32. Only the first 4
  // channels of x and w are read; the others, if any, must be zeros.
  bool pool_y = false;
  // Backward weights: dw is fp32 for every dtype. Libraries round it to dtype in between.
  bool wide_dw = false;

  int64_t out_h() const { return (h + 2 * pad - kernel) / stride + 1; }
  int64_t out_w() const { return (w + 2 * pad - kernel) / stride + 1; }
  int64_t y_h() const { return pool_y ? (out_h() - 1) / 2 + 1 : out_h(); }
  int64_t y_w() const { return pool_y ? (out_w() - 1) / 2 + 1 : out_w(); }
  int64_t PitchOfX() const { return x_pitch > 0 ? x_pitch : c; }
  int64_t PitchOfY() const { return y_pitch > 0 ? y_pitch : k; }
  int64_t PitchOfMask() const { return mask_pitch > 0 ? mask_pitch : c; }
  DType bias_dtype() const { return wide_bias ? DType::kF32 : dtype; }
  // Of the gradient of w.
  DType dw_dtype() const { return pool_x || pool_y || wide_dw ? DType::kF32 : dtype; }
  int64_t macs() const {
    return n * out_h() * out_w() * k * (pool_y ? std::min<int64_t>(c, 4) : c) * kernel * kernel;
  }
  friend bool operator==(const ConvolutionProblem&, const ConvolutionProblem&) = default;
};

// d[m,n] = op(a) op(b), row-major, where op(a) is [m,k] and op(b) [k,n]. a is stored as [m,k] or, transposed,
// as [k,m]; b as [k,n] or, transposed, as [n,k]. Strides are elements between stored rows. Accumulation in
// fp32, then relu(d + bias[n]).
struct MatmulProblem {
  int64_t m = 1, n = 1, k = 1;
  DType in = DType::kBf16, out = DType::kBf16;  // bias has the type of out
  bool transpose_a = false, transpose_b = false;
  int64_t a_stride = 0, b_stride = 0, d_stride = 0;
  bool bias = false, relu = false;

  int64_t macs() const { return m * n * k; }
  friend bool operator==(const MatmulProblem&, const MatmulProblem&) = default;
};

// The problem of y = x w^T, where a row of x has `in` elements and a row of y `out`; of dx = dy w; or of dw =
// dy^T x, which is fp32. All dense.
inline MatmulProblem ProductOf(ConvolutionProblem::Pass pass, DType dtype, int64_t rows, int64_t in,
                               int64_t out) {
  MatmulProblem p = {.m = rows, .n = in, .k = out, .in = dtype, .out = dtype};
  if (pass == ConvolutionProblem::Pass::kForward) {
    std::swap(p.n, p.k);
    p.transpose_b = true;
  } else if (pass == ConvolutionProblem::Pass::kBackwardWeights) {
    std::swap(p.m, p.k);
    p.transpose_a = true;
    p.out = DType::kF32;
  }
  p.a_stride = p.transpose_a ? p.m : p.k;
  p.b_stride = in;
  p.d_stride = p.n;
  return p;
}

// The operands of a plan. Convolution forward: a x, b w, d y; backward data: a dy, b w, d dx; backward
// weights: a x, b dy, d dw; matmul: a, b, d. bias, mask, sums and argmax apply to problems that have them. d,
// sums and argmax are overwritten.
struct PlanOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* d = nullptr;
  void* workspace = nullptr;  // CudaPlan::workspace_bytes(), aligned to 256 bytes
  const void* bias = nullptr;
  const void* mask = nullptr;
  float* sums = nullptr;
  // Forward of pool_x: the position row * 3 + column of each maximum in its window, the first in scan order,
  // dense [pixels][c]. Of pool_y likewise, [pixels of y][k], but kNoMaximum (max_window.h) where the maximum
  // is not positive. nullptr: not needed.
  uint8_t* argmax = nullptr;
  friend bool operator==(const PlanOperands&, const PlanOperands&) = default;
};

// A prepared call of a library or of a custom tensor core kernel.
class CudaPlan {
 public:
  virtual ~CudaPlan() = default;
  size_t workspace_bytes() const { return workspace_bytes_; }
  virtual void Run(const PlanOperands& operands) = 0;  // enqueues

 protected:
  size_t workspace_bytes_ = 0;
};

class CudaDevice : public Device {
 public:
  enum class Mode { kGpu, kHost, kPlan };

  DeviceType type() const final { return DeviceType::kCuda; }
  int64_t channel_block(DType) const final { return 1; }
  Mode mode() const { return mode_; }

  // Called before and after every launch. Begin returns false if nothing should be enqueued (kPlan).
  virtual bool Begin(const Launch& launch) = 0;
  virtual void End() = 0;
  // kPlan only: what the next launch executes.
  virtual void Expect(const KernelWork& work) { (void)work; }

  // Branches of work that may run concurrently, as nodes of a graph. Between Fork and Join, work enqueued
  // after Branch(i) waits for the work before Fork and for earlier work of branch i. Work after Join waits
  // for all branches. A branch must not write memory that another one uses. No-ops on a single queue.
  static constexpr int kBranches = 3;
  virtual void Fork() {}
  virtual void Branch(int index) { (void)index; }
  virtual void Join() {}

  // Unimplemented if no engine supports the problem; the message contains the problem.
  virtual absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const ConvolutionProblem& problem) = 0;
  virtual absl::StatusOr<std::unique_ptr<CudaPlan>> Plan(const MatmulProblem& problem) = 0;

 protected:
  explicit CudaDevice(Mode mode) : mode_(mode) {}

 private:
  const Mode mode_;
};

inline CudaDevice& AsCuda(Device& device) {
  return static_cast<CudaDevice&>(device);
}

}  // namespace deeper
