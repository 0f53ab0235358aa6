// oneDNN behind one door: the only file that knows which version of its creation API is installed.
//
// Primitives are made once (a failure is a Status), bound to memory once, and then only run. They allocate
// nothing: each states its scratch memory, which the op adds to OpNeeds::workspace_bytes. For .cpp files of
// the CPU backend only.
#pragma once

#include <initializer_list>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/base/op.h"
#include "kernels/base/tensor.h"

namespace deeper::onednn {

using Desc = dnnl::memory::desc;

constexpr size_t kAlignment = 64;  // of memory that is handed to it

Desc DescOf(const TensorDesc& tensor);
// A weight or a vector as the op stores it: float32, plain or OIhw{b}i{b}o.
Desc DescOf(const ParamSpec& spec, const ParamLayout& layout);
// The same shape in whatever format the primitive likes best.
Desc AnyFormat(const Desc& desc, DType dtype);

class Primitive {
 public:
  Primitive() = default;  // does nothing when run
  explicit Primitive(const dnnl::primitive_desc_base& desc);

  bool empty() const { return !desc_; }
  // The memory it wants for DNNL_ARG_...; of size 0 where it has no such argument.
  Desc ArgDesc(int arg) const { return desc_.query_md(dnnl::query::exec_arg_md, arg); }
  size_t ArgBytes(int arg) const { return empty() ? 0 : ArgDesc(arg).get_size(); }
  size_t scratch_bytes() const { return ArgBytes(DNNL_ARG_SCRATCHPAD); }
  // oneDNN's name of the code chosen, such as "jit:avx512_core"; "ref..." is the slow one.
  std::string implementation() const { return empty() ? "" : desc_.impl_info_str(); }

  // Fixes the memory of every argument; those the primitive does not have are skipped.
  void Bind(std::initializer_list<std::pair<int, void*>> args, void* scratch);
  // Returns when done. Dies on a oneDNN error: none is foreseeable once prepared.
  void Run() const;

 private:
  dnnl::primitive_desc_base desc_;
  dnnl::primitive primitive_;
  std::unordered_map<int, dnnl::memory> args_;
};

// What to prepare besides Forward.
struct Passes {
  bool training = true;  // false: Forward only
  bool dx = true;        // false: no gradient of x either
};

// Arguments: forward SRC, WEIGHTS, BIAS, DST; backward_data DIFF_DST, WEIGHTS, DIFF_SRC; backward_weights
// SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_BIAS. Each may want its weights in another format: see ArgDesc.
struct Weighted {
  Primitive forward, backward_data, backward_weights;
};

// w and diff_w may be AnyFormat; b is a vector or empty. With `relu`, y = max(0, w * x + b).
struct WeightedDescs {
  Desc x, w, diff_w, b, y;
  bool relu = false;
};

// Winograd where it is allowed by `winograd` and exists, then direct; never the reference code where there is
// a choice.
absl::StatusOr<Weighted> MakeConvolution(const WeightedDescs& descs, int64_t stride, int64_t pad,
                                         bool winograd, Passes passes);
absl::StatusOr<Weighted> MakeInnerProduct(const WeightedDescs& descs, Passes passes);

// Forward writes WORKSPACE (ArgBytes of it; 0 where there is none), which backward reads.
struct ForwardBackward {
  Primitive forward, backward;
};

struct Window {
  int64_t kernel_h = 1, kernel_w = 1, stride = 1;
  int64_t pad = 0;  // above and to the left; below and to the right follows from the shape of y
};

// algorithm: pooling_max or pooling_avg_exclude_padding. SRC, DST, WORKSPACE; DIFF_DST, WORKSPACE, DIFF_SRC.
absl::StatusOr<ForwardBackward> MakePooling(dnnl::algorithm algorithm, const Desc& x, const Desc& y,
                                            const Window& window, Passes passes);
// SRC, DST, WORKSPACE; SRC, DIFF_DST, WORKSPACE, DIFF_SRC.
absl::StatusOr<ForwardBackward> MakeLrn(const Desc& x, int64_t size, float alpha, float beta, float k,
                                        Passes passes);
// SRC, SCALE, SHIFT -> DST, MEAN, VARIANCE and, in training, WORKSPACE. Where the statistics are given, MEAN
// and VARIANCE are inputs, and constants in backward. Backward: SRC, MEAN, VARIANCE, SCALE, DIFF_DST,
// WORKSPACE -> DIFF_SRC, DIFF_SCALE, DIFF_SHIFT. DST may be SRC, DIFF_SRC DIFF_DST.
absl::StatusOr<ForwardBackward> MakeBatchNorm(const Desc& x, float eps, bool relu, bool training,
                                              bool given_statistics);

// FROM -> TO. Empty where the two are the same.
absl::StatusOr<Primitive> MakeReorder(const Desc& from, const Desc& to);

}  // namespace deeper::onednn
