// The interface of an op. An op is prepared once and then only run.
//
// An op has one input x and one output y. MakeOp (ops.h) validates shapes, builds the backend's primitives
// and states the memory requirements. Bind assigns that memory permanently. Forward and Backward then only
// enqueue work on the device's stream; they allocate nothing and return no errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/tensor.h"

namespace deeper {

// What ops read about the current step. It stays at a fixed address in device memory while the network
// exists, so that recorded work reads the current values.
struct StepContext {
  uint64_t seed = 0;
  const uint64_t* samples =
      nullptr;       // [n] dataset index of the sample in each row: the key of all per-sample draws
  int64_t rows = 0;  // rows that count; the rows after them pad the batch
  uint32_t epoch = 0;
  float loss_scale = 1;  // 1 / samples of the step over all ranks and micro-batches
};

enum class ParamRole : uint8_t { kWeight, kBias, kScale, kShift, kRunningMean, kRunningVar };

// Statistics are kept and saved like parameters, but have no gradient and are not optimised.
constexpr bool IsStatistic(ParamRole r) {
  return r == ParamRole::kRunningMean || r == ParamRole::kRunningVar;
}

enum class Init : uint8_t {
  kHe,      // normal, variance 2 / fan_in: He et al. 2015, eq. 10
  kXavier,  // uniform, +-sqrt(6 / (fan_in + fan_out)): Glorot and Bengio 2010, eq. 16
  kZero,
  kOne,
};

// A parameter in the form of files and reports: float32, convolutions OIHW, linear layers OI, vectors C.
struct ParamSpec {
  std::string name;  // within the op: "conv.weight", "branch2.1.conv.bias"
  std::vector<int64_t> shape;
  ParamRole role = ParamRole::kWeight;
  Init init = Init::kZero;

  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  // Inputs per output element, and outputs per input element: shape[1] * kh * kw and shape[0] * kh * kw.
  int64_t fan_in() const { return shape.size() < 2 ? 1 : elements() / shape[0]; }
  int64_t fan_out() const { return shape.size() < 2 ? 1 : elements() / shape[1]; }
};

// A parameter in the form that the op keeps in memory, always float32.
//   kPlain         as in ParamSpec; block is 1
//   kBlocked       OIhw{b}i{b}o with O and I padded to multiples of b = block (oneDNN)
//   kChannelsLast  OhwI with I padded to a multiple of block (cuDNN's NHWC filters)
// Padding is zero and stays zero: its gradients are zero.
struct ParamLayout {
  enum class Order : uint8_t { kPlain, kBlocked, kChannelsLast };
  Order order = Order::kPlain;
  int64_t block = 1;
  int64_t stored_elements = 0;
  friend constexpr bool operator==(const ParamLayout&, const ParamLayout&) = default;
};

// Vectors are plain in both forms. So is a parameter whose blocks have size 1, unless it is channels last.
ParamLayout MakeParamLayout(const ParamSpec& spec, int64_t block);
ParamLayout MakeChannelsLastLayout(const ParamSpec& spec, int64_t block);
// Convert between the two forms; `stored` holds layout.stored_elements floats, `canonical` spec.elements().
// Both overwrite, and use one thread.
void PackParam(const ParamSpec& spec, const ParamLayout& layout, const float* canonical, float* stored);
void UnpackParam(const ParamSpec& spec, const ParamLayout& layout, const float* stored, float* canonical);

// The properties of an op before it is prepared, without a device. `describe`, the parameter table and the
// memory estimate use them.
struct OpShape {
  Shape y;
  std::vector<ParamSpec> params;
  int64_t macs = 0;            // multiply-accumulates of one forward pass over the whole batch
  int64_t inner_elements = 0;  // activations inside the op that backward needs, besides x and y
};

// Replaces the gradient of a tensor by the gradient of its max pool: dense, in the shape of the pool's
// output. The reader spreads it to the positions where the pool found the maximum of each window.
struct PooledPart {
  TensorDesc desc;
  int64_t kernel = 1, stride = 1, pad = 0;
};
struct PooledGradient {
  PooledPart part;
  const void* data = nullptr;
  // [pixels][channels] position of the first maximum in its window: row * kernel + column. 9 of 3x3: masked.
  const uint8_t* argmax = nullptr;
};

// The requirements of a prepared op.
struct OpNeeds {
  TensorDesc x, y;
  // Backward writes the gradient of x as the SUM of these tensors. All have the shape and layout of x, but
  // are dense. An op that computes parts returns the parts; their reader adds them in a pass that it makes in
  // any case. Empty if no gradient of x is needed.
  std::vector<TensorDesc> dx_parts;
  // An additional part, with OpOptions::x_takes_pooled_gradients. Its argmax is at the start of `saved`.
  std::optional<PooledPart> pooled_dx;
  bool takes_pooled_gradients = false;  // Backward reads OpBinding::pooled_dy
  std::vector<ParamLayout> params;      // in the order of OpShape::params
  // Indexes of parameters that must be contiguous in memory: several runs, each of one role.
  std::vector<std::vector<size_t>> adjacent_params;
  size_t saved_bytes = 0;      // written by Forward, read by the Backward that follows
  size_t workspace_bytes = 0;  // scratch, alive within one call of Forward or Backward
  bool backward_reads_x = false;
  bool backward_reads_y = false;
};

// Parts of `saved` and `workspace` are aligned to 256 bytes, as GPU libraries require.
constexpr size_t Align(size_t bytes) {
  return RoundUp(bytes, 256);
}

// Device memory of the op, valid for its lifetime. 64-byte aligned; stored channels are padded with zeros
// (Layout::kBlocked).
struct OpBinding {
  void* x = nullptr;
  void* y = nullptr;
  // Parts whose sum is dL/dy: at least one, or one in pooled_dy. Backward may overwrite them. Training only.
  std::vector<void*> dy;
  std::vector<PooledGradient> pooled_dy;  // additional parts, with OpNeeds::takes_pooled_gradients
  std::vector<void*> dx;                  // one for each of OpNeeds::dx_parts; overwritten, never added to
  void* pooled_dx = nullptr;              // likewise
  std::vector<float*> params;             // one for each of OpShape::params
  // The same in bf16, kept up to date by the writer of params. Present on devices that need it
  // (Device::wants_narrow_params) with bf16 activations; else nullptrs or empty.
  std::vector<const void*> narrow_params;
  std::vector<float*> grads;  // likewise, nullptr for statistics; overwritten, never added to. Training only.
  void* saved = nullptr;
  void* workspace = nullptr;
  const StepContext* step = nullptr;
};

class Op {
 public:
  virtual ~Op() = default;
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  const OpNeeds& needs() const { return needs_; }
  // Called before the first Forward. x must not alias other memory. y may alias x only where the op's header
  // allows it. On CUDA it may be called again, after Backward, with another x.
  virtual void Bind(const OpBinding& binding) { binding_ = binding; }
  // y is overwritten.
  virtual void Forward() = 0;
  // Reads dy (and x, y, saved as stated); overwrites dx and the parameter gradients. Once after each Forward.
  virtual void Backward() = 0;

 protected:
  Op() = default;
  // A parameter in the type of the activations, for devices that need it.
  const void* Param(size_t i) const {
    return needs_.x.dtype == DType::kF32 ? binding_.params[i] : binding_.narrow_params[i];
  }

  OpNeeds needs_;
  OpBinding binding_;
};

// values: [count] in the device's memory, overwritten on every rank with the sum over ranks, with the same
// bits everywhere. Later work on the device's stream sees the sums; on the CPU they are complete when it
// returns. Every rank must make the same number of calls with the same counts.
using SumOverRanks = std::function<void(double* values, size_t count)>;

// Options for preparing an op.
struct OpOptions {
  std::string name;  // of the node; names the op's random stream
  bool training =
      true;  // false: Forward only, dropout is the identity, batch norm uses its running statistics
  bool want_dx = true;                    // false for the op that reads the images
  bool x_takes_pooled_gradients = false;  // the op that produces x accepts them
  // True allows fused kernels, and y as a slice. False uses separate kernels, the reference for the fused
  // ones.
  bool fuse = false;
  // In training, batch norm takes its statistics over the counted rows of all ranks (StepContext::rows). It
  // calls this function in Forward and in Backward. Empty: over all rows of its own x. No fused kernels.
  SumOverRanks sum_over_ranks = nullptr;
};

}  // namespace deeper
