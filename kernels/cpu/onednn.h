// The wrapper around oneDNN. Only this file depends on the version of its creation API.
//
// Primitives are created once (a failure is a Status), bound to memory once, and then only run. They allocate
// nothing: the op adds their scratch memory to OpNeeds::workspace_bytes. For .cpp files of the CPU backend
// only.
#pragma once

#include <oneapi/dnnl/dnnl_version.h>
#include <initializer_list>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"
#include "kernels/base/tensor.h"

namespace deeper::onednn {

using Desc = dnnl::memory::desc;

constexpr size_t kAlignment = 64;  // of the memory that oneDNN receives

Desc DescOf(const TensorDesc& tensor);
// A weight or a vector in the format of the op: float32, plain or OIhw{b}i{b}o.
Desc DescOf(const ParamSpec& spec, const ParamLayout& layout);
// The same shape in the primitive's preferred format.
Desc AnyFormat(const Desc& desc, DType dtype);

class Primitive {
 public:
  Primitive() = default;  // does nothing when run
  // `name` and `macs` describe a run in profiles.
  Primitive(const dnnl::primitive_desc_base& desc, const char* name, int64_t macs = 0);

  bool empty() const { return !desc_; }
  // The memory descriptor for DNNL_ARG_...; size 0 if the primitive has no such argument.
  Desc ArgDesc(int arg) const { return desc_.query_md(dnnl::query::exec_arg_md, arg); }
  size_t ArgBytes(int arg) const { return empty() ? 0 : ArgDesc(arg).get_size(); }
  size_t scratch_bytes() const { return ArgBytes(DNNL_ARG_SCRATCHPAD); }
  // oneDNN's name of the selected code, such as "jit:avx512_core". "ref..." is slow reference code.
  std::string implementation() const { return empty() ? "" : desc_.impl_info_str(); }

  // Sets the memory of every argument. Skips arguments that the primitive does not have.
  void Bind(std::initializer_list<std::pair<int, void*>> args, void* scratch);
  // Returns when done. Aborts on a oneDNN error; none is expected after preparation.
  void Run() const;

 private:
  dnnl::primitive_desc_base desc_;
  Launch launch_;
  dnnl::primitive primitive_;
  std::unordered_map<int, dnnl::memory> args_;
};

// The passes to prepare in addition to Forward.
struct Passes {
  bool training = true;  // false: Forward only
  bool dx = true;        // false: no gradient of x
};

// Arguments: forward SRC, WEIGHTS, BIAS, DST; backward_data DIFF_DST, WEIGHTS, DIFF_SRC; backward_weights
// SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS. Each may require another format of the weights: see ArgDesc.
struct Weighted {
  Primitive forward, backward_data, backward_weights;
};

// w and diff_w may be AnyFormat; b is a vector or empty. With `relu`, y = max(0, w * x + b).
struct WeightedDescs {
  Desc x, w, diff_w, b, y;
  bool relu = false;
};

// Prefers Winograd if `winograd` allows it and it exists, then direct convolution. Uses reference code only
// if there is nothing else.
absl::StatusOr<Weighted> MakeConvolution(const WeightedDescs& descs, int64_t stride, int64_t pad,
                                         bool winograd, Passes passes);
absl::StatusOr<Weighted> MakeInnerProduct(const WeightedDescs& descs, Passes passes);

// Forward writes WORKSPACE (size: its ArgBytes, possibly 0), and backward reads it.
struct ForwardBackward {
  Primitive forward, backward;
};

struct Window {
  int64_t kernel_h = 1, kernel_w = 1, stride = 1;
  int64_t pad = 0;  // top and left; the shape of y determines bottom and right
};

// algorithm: pooling_max or pooling_avg_exclude_padding. SRC, DST, WORKSPACE; DIFF_DST, WORKSPACE, DIFF_SRC.
absl::StatusOr<ForwardBackward> MakePooling(dnnl::algorithm algorithm, const Desc& x, const Desc& y,
                                            const Window& window, Passes passes);
// SRC, DST, WORKSPACE; SRC, DIFF_DST, WORKSPACE, DIFF_SRC. reference_backward: slow code for backward.
absl::StatusOr<ForwardBackward> MakeLrn(const Desc& x, int64_t size, float alpha, float beta, float k,
                                        Passes passes, bool reference_backward);
// SRC, SCALE, SHIFT -> DST, MEAN, VARIANCE and, in training, WORKSPACE. With given statistics, MEAN and
// VARIANCE are inputs, and backward treats them as constants. Backward: SRC, MEAN, VARIANCE, SCALE,
// kShiftOfBackward, DIFF_DST, WORKSPACE -> DIFF_SRC, DIFF_SCALE, DIFF_SHIFT. DST may be SRC, DIFF_SRC may be
// DIFF_DST. oneDNN 2 requires the shift in backward, and oneDNN 3 rejects it.
constexpr int kShiftOfBackward = DNNL_VERSION_MAJOR >= 3 ? 0 : DNNL_ARG_SHIFT;  // 0: no argument
absl::StatusOr<ForwardBackward> MakeBatchNorm(const Desc& x, float eps, bool relu, bool training,
                                              bool given_statistics);

// FROM -> TO. Empty if both formats are the same.
absl::StatusOr<Primitive> MakeReorder(const Desc& from, const Desc& to);

}  // namespace deeper::onednn
