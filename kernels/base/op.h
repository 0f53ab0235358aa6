// What every op is: prepared once, then only run.
//
// An op has one input x and one output y. Preparing it (MakeOp in ops.h)
// validates shapes, builds the backend's primitives and states what memory it wants; Bind hands it that
// memory for good; Forward and Backward afterwards only enqueue work on the device's stream, allocate nothing
// and cannot fail in a way a caller could handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/tensor.h"

namespace deeper {

// What ops must know of the step under way. Lives at a fixed address for the life of a network, in memory of
// the device, so that recorded work reads what is new.
struct StepContext {
  uint64_t seed = 0;
  const uint64_t* samples =
      nullptr;       // [n] index in the dataset of the sample in each row: the key of all per-sample draws
  int64_t rows = 0;  // that count: the others, behind them, pad the batch
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

// A parameter as files and people see it: float32, convolutions OIHW, linear layers OI, vectors C.
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
  // Inputs of one output element, and outputs one input element feeds: shape[1] * kh * kw and shape[0] * kh *
  // kw.
  int64_t fan_in() const { return shape.size() < 2 ? 1 : elements() / shape[0]; }
  int64_t fan_out() const { return shape.size() < 2 ? 1 : elements() / shape[1]; }
};

// A parameter as the op keeps it in memory, always float32.
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

// Vectors are plain, in both; so is what has blocks of 1 in the first, and is not channels last.
ParamLayout MakeParamLayout(const ParamSpec& spec, int64_t block);
ParamLayout MakeChannelsLastLayout(const ParamSpec& spec, int64_t block);
// Between the two forms; `stored` holds layout.stored_elements floats, `canonical` spec.elements(). Both
// overwrite. Packing is a parallel loop; unpacking, which is done beside training, is not.
void PackParam(const ParamSpec& spec, const ParamLayout& layout, const float* canonical, float* stored);
void UnpackParam(const ParamSpec& spec, const ParamLayout& layout, const float* stored, float* canonical);

// What an op is before it is prepared: enough for `describe`, for a parameter table and for a memory
// estimate. No device.
struct OpShape {
  Shape y;
  std::vector<ParamSpec> params;
  int64_t macs = 0;            // multiply-accumulates of one forward pass over the whole batch
  int64_t inner_elements = 0;  // activations inside the op that backward needs, besides x and y
};

// The gradient of a max pool of a tensor in place of the tensor's own: dense, of the pool's output. Whoever
// reads it spreads it, to where the pool found the maximum of each window.
struct PooledPart {
  TensorDesc desc;
  int64_t kernel = 1, stride = 1, pad = 0;
};
struct PooledGradient {
  PooledPart part;
  const void* data = nullptr;
  // [pixels][channels] position of the first maximum in its window, row * kernel + column.
  const uint8_t* argmax = nullptr;
};

// What a prepared op wants.
struct OpNeeds {
  TensorDesc x, y;
  // Backward writes the gradient of x as the SUM of these tensors, all of x's shape and layout, but dense: an
  // op that has it in parts hands over the parts, and whoever reads them adds them up in a pass it makes
  // anyway. Empty where no gradient of x is wanted.
  std::vector<TensorDesc> dx_parts;
  // One more part, where OpOptions::x_takes_pooled_gradients; its argmax is the beginning of `saved`.
  std::optional<PooledPart> pooled_dx;
  bool takes_pooled_gradients = false;  // Backward reads OpBinding::pooled_dy
  std::vector<ParamLayout> params;      // in the order of OpShape::params
  // Parameters, by their indexes, that must lie one right behind the other: several of these runs, each of
  // one role.
  std::vector<std::vector<size_t>> adjacent_params;
  size_t saved_bytes = 0;      // written by Forward, read by the Backward that follows
  size_t workspace_bytes = 0;  // scratch, alive within one call of Forward or Backward
  bool backward_reads_x = false;
  bool backward_reads_y = false;
};

// Parts of `saved` and `workspace` begin on 256 bytes, as libraries want them on a GPU.
constexpr size_t Align(size_t bytes) {
  return RoundUp(bytes, 256);
}

// Device memory for the life of the op; 64-byte aligned (stored channels padded with zeros, see
// Layout::kBlocked).
struct OpBinding {
  void* x = nullptr;
  void* y = nullptr;
  std::vector<void*>
      dy;  // parts whose sum is dL/dy, any number >= 1. Backward may overwrite them. Training only.
  std::vector<PooledGradient> pooled_dy;  // more parts, where OpNeeds::takes_pooled_gradients
  std::vector<void*> dx;                  // one for each of OpNeeds::dx_parts; overwritten, never added to
  void* pooled_dx = nullptr;              // likewise
  std::vector<float*> params;             // one for each of OpShape::params
  // The same in bf16, kept up to date by whoever writes params, for devices that want it
  // (Device::wants_narrow_params) and bf16 activations; else nullptrs or empty.
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
  // Once, before the first Forward. x may alias nothing else; y may alias x only where an op's header says
  // so.
  virtual void Bind(const OpBinding& binding) { binding_ = binding; }
  // y is overwritten.
  virtual void Forward() = 0;
  // Reads dy (and x, y, saved as stated); overwrites dx and the parameter gradients. Once after each Forward.
  virtual void Backward() = 0;

 protected:
  Op() = default;
  // A parameter in the type of the activations, for devices that want it.
  const void* Param(size_t i) const {
    return needs_.x.dtype == DType::kF32 ? binding_.params[i] : binding_.narrow_params[i];
  }

  OpNeeds needs_;
  OpBinding binding_;
};

// values: [count], replaced on every rank by the sum over ranks, the same bits everywhere; returns when it is
// there. Every rank calls it as often and with the same counts.
using SumOverRanks = std::function<void(double* values, size_t count)>;

// How an op is to be prepared.
struct OpOptions {
  std::string name;  // of the node; names the op's random stream
  bool training =
      true;  // false: Forward only, dropout is the identity, batch norm uses its running statistics
  bool want_dx = true;                    // false for the op that reads the images
  bool x_takes_pooled_gradients = false;  // the op that makes x does
  // An op may be prepared as fused kernels, and y be a slice. False: as the separate kernels that fused ones
  // are checked against.
  bool fuse = false;
  // In training, batch norm takes its statistics over the rows of all ranks that count (StepContext::rows),
  // and exchanges them by this, in Forward and in Backward. Empty: over all rows of its own x. CPU only.
  SumOverRanks sum_over_ranks = nullptr;
};

}  // namespace deeper
