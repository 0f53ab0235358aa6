#include "kernels/cpu/onednn.h"

#include <sys/mman.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"
#include "kernels/cpu/profile.h"

// Descriptors of version 3 take additional arguments.
#if DNNL_VERSION_MAJOR >= 3
#define DEEPER_SINCE_3(...) __VA_ARGS__,
#else
#define DEEPER_SINCE_3(...)
#endif

namespace deeper::onednn {
namespace {

using dnnl::algorithm;
using dnnl::prop_kind;
using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;

const dnnl::engine& Engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

const dnnl::stream& CpuStream() {
  static const dnnl::stream stream(Engine());
  return stream;
}

dnnl::memory::data_type TypeOf(DType dtype) {
  DEEPER_CHECK(dtype == DType::kF32 || dtype == DType::kBf16, NameOf(dtype));
  return dtype == DType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

// The caller owns scratch memory, so that training allocates nothing.
dnnl::primitive_attr Attributes(bool relu = false) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (relu) {
    dnnl::post_ops ops;
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(algorithm::eltwise_relu, 0.0f, 0.0f);
#else
    ops.append_eltwise(1.0f, algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
    attr.set_post_ops(ops);
  }
  return attr;
}

Dims ShapeOf(const Desc& desc) {
#if DNNL_VERSION_MAJOR >= 3
  return desc.get_dims();
#else
  return desc.dims();
#endif
}

// Version 2 creates a primitive descriptor from an operation descriptor, version 3 directly. Empty if oneDNN
// does not support it.
template <class P, class... Args>
typename P::primitive_desc Describe(const dnnl::primitive_attr& attr, const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return {Engine(), args..., attr, /*allow_empty=*/true};
#else
  return {typename P::desc(args...), attr, Engine(), /*allow_empty=*/true};
#endif
}

bool IsReference(std::string_view implementation) {
  return implementation.find("ref") != std::string_view::npos;  // "ref:any", "lrn_ref:any"
}

// `reference` selects oneDNN's slow reference code.
template <class P, class Hint, class... Args>
typename P::primitive_desc DescribeBackward(bool reference, const Hint& forward, const Args&... args) {
  const dnnl::primitive_attr attr = Attributes();
#if DNNL_VERSION_MAJOR >= 3
  typename P::primitive_desc desc(Engine(), args..., forward, attr, /*allow_empty=*/true);
#else
  const typename P::desc operation(args...);  // next_impl() reads it
  typename P::primitive_desc desc(operation, attr, Engine(), forward, /*allow_empty=*/true);
#endif
  while (reference && desc && !IsReference(desc.impl_info_str()) && desc.next_impl()) {
  }
  return desc;
}

template <class P, class Hint, class... Args>
typename P::primitive_desc DescribeBackward(const Hint& forward, const Args&... args) {
  return DescribeBackward<P>(/*reference=*/false, forward, args...);
}

// Selects the first of `algorithms` with optimised code, otherwise the first that is supported.
// describe(algorithm) returns a descriptor.
template <class Descr>
auto FirstFast(std::initializer_list<algorithm> algorithms, const Descr& describe) {
  decltype(describe(algorithm::undef)) fallback;
  for (const algorithm a : algorithms) {
    auto desc = describe(a);
    if (!desc) continue;
    if (!std::string_view(desc.impl_info_str()).starts_with("ref")) return desc;
    if (!fallback) fallback = desc;
  }
  return fallback;
}

// oneDNN reports creation failures as exceptions. This file converts them to Statuses.
template <class Make>
auto Guarded(const char* what, const Desc& x, const Make& make) -> absl::StatusOr<decltype(make())> {
  try {
    return make();
  } catch (const dnnl::error& e) {
    const std::string message =
        absl::StrCat("oneDNN cannot prepare ", what, " of ", absl::StrJoin(ShapeOf(x), "x"), ": ", e.what());
    if (e.status == dnnl_unimplemented) return Unimplemented(message);
    if (e.status == dnnl_out_of_memory)
      return ResourceExhausted(message,
                               "; use a smaller batch, fewer ranks per machine or a higher `ulimit -v`");
    return Internal(message);
  }
}

// oneDNN crashes if it gets no memory for the code of a primitive.
void RequireMemoryForCode() {
  constexpr size_t kBytes = 4 << 20;  // far more than one primitive needs
  void* const code =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (code == MAP_FAILED) throw dnnl::error(dnnl_out_of_memory, "no memory for its code");
  munmap(code, kBytes);
}

// Of a convolution or a linear layer: the elements of y times the weights that each of them sums.
int64_t Macs(const WeightedDescs& d) {
  int64_t macs = 1;
  for (const int64_t side : ShapeOf(d.y)) macs *= side;
  for (size_t i = 1; i < ShapeOf(d.w).size(); ++i) macs *= ShapeOf(d.w)[i];
  return macs;
}

}  // namespace

Desc DescOf(const TensorDesc& t) {
  DEEPER_CHECK(t.pitch == 0, "the CPU backend does not support slices of channels");
  const bool blocked = t.layout == Layout::kBlocked;
  DEEPER_CHECK(!blocked || t.block == 16 || t.block == 8, std::to_string(t.block));
  const Tag plain = t.layout == Layout::kNhwc ? Tag::nhwc : Tag::nchw;
  const Tag tag = !blocked ? plain : t.block == 16 ? Tag::nChw16c : Tag::nChw8c;
  return Desc({t.shape.n, t.shape.c, t.shape.h, t.shape.w}, TypeOf(t.dtype), tag);
}

Desc DescOf(const ParamSpec& spec, const ParamLayout& layout) {
  static constexpr Tag kPlain[] = {Tag::a, Tag::ab, Tag::abc, Tag::abcd};
  DEEPER_CHECK(!spec.shape.empty() && spec.shape.size() <= 4, spec.name);
  DEEPER_CHECK(layout.block == 1 || layout.block == 8 || layout.block == 16, std::to_string(layout.block));
  Tag tag = kPlain[spec.shape.size() - 1];
  if (layout.block > 1) tag = layout.block == 16 ? Tag::OIhw16i16o : Tag::OIhw8i8o;
  return Desc(Dims(spec.shape), dnnl::memory::data_type::f32, tag);
}

Desc AnyFormat(const Desc& desc, DType dtype) {
  return Desc(ShapeOf(desc), TypeOf(dtype), Tag::any);
}

Primitive::Primitive(const dnnl::primitive_desc_base& desc, const char* name, int64_t macs) : desc_(desc) {
  if (!desc_) throw dnnl::error(dnnl_unimplemented, "no implementation on this processor");
  RequireMemoryForCode();
  primitive_ = dnnl::primitive(desc_.get());
  launch_ = {name, 0, macs};
  for (const int arg : {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_DIFF_SRC,
                        DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_WORKSPACE})
    launch_.bytes += static_cast<int64_t>(ArgBytes(arg));
}

void Primitive::Bind(std::initializer_list<std::pair<int, void*>> args, void* scratch) {
  args_.clear();
  if (empty()) return;
  const auto bind = [this](int arg, void* data) {
    if (ArgBytes(arg) == 0) return;
    DEEPER_CHECK(data != nullptr, absl::StrCat(implementation(), " argument ", arg));
    args_.insert_or_assign(arg, dnnl::memory(ArgDesc(arg), Engine(), data));
  };
  for (const auto& [arg, data] : args) bind(arg, data);
  bind(DNNL_ARG_SCRATCHPAD, scratch);
}

void Primitive::Run() const {
  if (empty()) return;
  try {
    Timed(launch_, [this] { primitive_.execute(CpuStream(), args_); });
  } catch (const dnnl::error& e) {
    DEEPER_CHECK(false, absl::StrCat("oneDNN ", implementation(), ": ", e.what()));
  }
}

absl::StatusOr<Weighted> MakeConvolution(const WeightedDescs& d, int64_t stride, int64_t pad, bool winograd,
                                         Passes passes) {
  const Dims strides{stride, stride}, pads{pad, pad};
  const auto first = winograd ? algorithm::convolution_winograd : algorithm::convolution_direct;
  const auto algorithms = {first, algorithm::convolution_direct, algorithm::convolution_auto};
  return Guarded("a convolution", d.x, [&] {
    // Evaluation also uses the forward pass of training: Winograd for inference needs weights transformed in
    // advance.
    const auto forward = FirstFast(algorithms, [&](algorithm a) {
      return Describe<dnnl::convolution_forward>(Attributes(d.relu), prop_kind::forward_training, a, d.x, d.w,
                                                 d.b, d.y, strides, pads, pads);
    });
    const int64_t macs = Macs(d);
    Weighted made = {Primitive(forward, "convolution forward", macs), {}, {}};
    if (passes.dx) {
      const auto desc = FirstFast(algorithms, [&](algorithm a) {
        return DescribeBackward<dnnl::convolution_backward_data>(forward, a, d.x, d.w, d.y, strides, pads,
                                                                 pads);
      });
      made.backward_data = Primitive(desc, "convolution data gradient", macs);
    }
    if (passes.training) {
      const auto desc = FirstFast(algorithms, [&](algorithm a) {
        return DescribeBackward<dnnl::convolution_backward_weights>(forward, a, d.x, d.diff_w, d.b, d.y,
                                                                    strides, pads, pads);
      });
      made.backward_weights = Primitive(desc, "convolution weight gradient", macs);
    }
    return made;
  });
}

absl::StatusOr<Weighted> MakeInnerProduct(const WeightedDescs& d, Passes passes) {
  return Guarded("a linear layer", d.x, [&] {
    const auto forward = Describe<dnnl::inner_product_forward>(
        Attributes(d.relu), prop_kind::forward_training, d.x, d.w, d.b, d.y);
    using Data = dnnl::inner_product_backward_data;
    using Weights = dnnl::inner_product_backward_weights;
    const int64_t macs = Macs(d);
    Weighted made = {Primitive(forward, "linear forward", macs), {}, {}};
    if (passes.dx) {
      made.backward_data =
          Primitive(DescribeBackward<Data>(forward, d.x, d.w, d.y), "linear data gradient", macs);
    }
    if (passes.training) {
      made.backward_weights = Primitive(DescribeBackward<Weights>(forward, d.x, d.diff_w, d.b, d.y),
                                        "linear weight gradient", macs);
    }
    return made;
  });
}

absl::StatusOr<ForwardBackward> MakePooling(algorithm algorithm, const Desc& x, const Desc& y,
                                            const Window& window, Passes passes) {
  const auto pad_end = [&](int axis, int64_t kernel) {
    return std::max<int64_t>(0,
                             (ShapeOf(y)[axis] - 1) * window.stride + kernel - ShapeOf(x)[axis] - window.pad);
  };
  const Dims strides{window.stride, window.stride}, kernel{window.kernel_h, window.kernel_w};
  [[maybe_unused]] const Dims dilation{0, 0};
  const Dims begin{window.pad, window.pad}, end{pad_end(2, window.kernel_h), pad_end(3, window.kernel_w)};
  return Guarded("a pooling", x, [&] {
    const auto kind = passes.training ? prop_kind::forward_training : prop_kind::forward_inference;
    const auto forward = Describe<dnnl::pooling_forward>(Attributes(), kind, algorithm, x, y, strides, kernel,
                                                         DEEPER_SINCE_3(dilation) begin, end);
    ForwardBackward made = {Primitive(forward, "pool forward"), {}};
    if (!passes.dx) return made;
    made.backward =
        Primitive(DescribeBackward<dnnl::pooling_backward>(forward, algorithm, x, y, strides, kernel,
                                                           DEEPER_SINCE_3(dilation) begin, end),
                  "pool backward");
    return made;
  });
}

absl::StatusOr<ForwardBackward> MakeLrn(const Desc& x, int64_t size, float alpha, float beta, float k,
                                        Passes passes, bool reference_backward) {
  constexpr auto kAcross = algorithm::lrn_across_channels;
  return Guarded("a local response normalisation", x, [&] {
    const auto kind = passes.training ? prop_kind::forward_training : prop_kind::forward_inference;
    const auto forward =
        Describe<dnnl::lrn_forward>(Attributes(), kind, kAcross, x, DEEPER_SINCE_3(x) size, alpha, beta, k);
    ForwardBackward made = {Primitive(forward, "lrn forward"), {}};
    if (!passes.dx) return made;
    made.backward = Primitive(DescribeBackward<dnnl::lrn_backward>(reference_backward, forward, kAcross, x, x,
                                                                   DEEPER_SINCE_3(x) size, alpha, beta, k),
                              "lrn backward");
    return made;
  });
}

absl::StatusOr<ForwardBackward> MakeBatchNorm(const Desc& x, float eps, bool relu, bool training,
                                              bool given_statistics) {
  using Flag = dnnl::normalization_flags;
  Flag flags = Flag::use_scale | Flag::use_shift;
  if (relu) flags |= Flag::fuse_norm_relu;
  if (given_statistics) flags |= Flag::use_global_stats;
  return Guarded("a batch normalisation", x, [&] {
    const auto kind = training ? prop_kind::forward_training : prop_kind::forward_inference;
    const auto forward =
        Describe<dnnl::batch_normalization_forward>(Attributes(), kind, x, DEEPER_SINCE_3(x) eps, flags);
    ForwardBackward made = {Primitive(forward, "batch norm forward"), {}};
    if (!training) return made;
    made.backward = Primitive(DescribeBackward<dnnl::batch_normalization_backward>(
                                  forward, prop_kind::backward, x, x, DEEPER_SINCE_3(x) eps, flags),
                              "batch norm backward");
    return made;
  });
}

absl::StatusOr<Primitive> MakeReorder(const Desc& from, const Desc& to) {
  if (from == to) return Primitive();
  return Guarded("a change of layout", from, [&] {
    return Primitive(
        dnnl::reorder::primitive_desc(Engine(), from, Engine(), to, Attributes(), /*allow_empty=*/true),
        "weight reorder");
  });
}

}  // namespace deeper::onednn
