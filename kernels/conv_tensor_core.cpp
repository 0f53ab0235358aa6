#include "kernels/conv_tensor_core.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/conv_kernels.h"
#include "kernels/cuda_problem.h"

namespace deeper::tensor_core {
namespace {

constexpr uintptr_t kAlignment = 16;
constexpr int64_t kMaxKernel = 255;  // TMA's corners are bytes

struct Kernel {
  const char* name;
  int first, last;  // compute capability
  int tile_columns;
  cudaError_t (*launch)(int tile_columns, const conv::Arguments& arguments, cudaStream_t stream);

  std::string ToString() const {
    return absl::StrCat("deeper ", name, " ", conv::kTilePixels, "x", tile_columns);
  }
};
// The better first.
constexpr Kernel kKernels[] = {
    {"sm90", 90, 90, 192, conv::LaunchSm90},  {"sm90", 90, 90, 128, conv::LaunchSm90},
    {"sm90", 90, 90, 64, conv::LaunchSm90},   {"sm80", 80, 1000, 128, conv::LaunchSm80},
    {"sm80", 80, 1000, 64, conv::LaunchSm80},
};

// Why not; nullptr if the kernels compute it.
const char* Reason(const ConvolutionProblem& p) {
  if (p.dtype != DType::kBf16) return "for bf16 only";
  if (p.pass == ConvolutionProblem::Pass::kBackwardWeights) return "no gradients of weights";
  if (p.stride != 1) return "for stride 1 only";
  if (p.kernel % 2 == 0 || p.pad != p.kernel / 2 || p.kernel > kMaxKernel) {
    return "for odd filters with the padding that keeps the size only";
  }
  for (const int64_t channels : {p.c, p.k, p.PitchOfX(), p.PitchOfY(), p.mask_dx ? p.PitchOfMask() : 0}) {
    if (channels % conv::kChunk != 0) return "for multiples of 8 channels only";
  }
  if (p.n * p.h * p.w > std::numeric_limits<int>::max() - conv::kTilePixels) return "too many pixels";
  return nullptr;
}

bool IsAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kAlignment == 0;
}

class TensorCoreConvolution final : public Algorithm {
 public:
  TensorCoreConvolution(const Kernel& kernel, const ConvolutionProblem& problem)
      : kernel_(kernel), problem_(problem), gemm_(GemmOf(problem)) {
    if (problem.mask_dx) {
      workspace_bytes_ =
          sizeof(float) * static_cast<size_t>(gemm_.pixel_tiles()) * static_cast<size_t>(gemm_.columns);
    }
  }

  bool needs_check() const override { return true; }
  absl::StatusOr<std::string> Serialize() const override { return kernel_.ToString(); }

  absl::Status Enqueue(const PlanOperands& o, Stream stream) override {
    const auto native = static_cast<cudaStream_t>(stream.native);
    if (!IsAligned(o.a) || !IsAligned(o.b) || !IsAligned(o.d) || !IsAligned(o.mask)) {
      return absl::InvalidArgumentError(
          absl::StrCat(kernel_.ToString(), ": operands not aligned to 16 bytes"));
    }
    conv::Arguments arguments = {gemm_, static_cast<const bf16*>(o.a), static_cast<const bf16*>(o.b), {}};
    conv::Epilogue& epilogue = arguments.epilogue;
    epilogue.out = static_cast<bf16*>(o.d);
    if (problem_.bias && problem_.wide_bias) epilogue.wide_bias = static_cast<const float*>(o.bias);
    if (problem_.bias && !problem_.wide_bias) epilogue.bias = static_cast<const bf16*>(o.bias);
    epilogue.relu = problem_.relu;
    if (problem_.mask_dx) {
      epilogue.mask = static_cast<const bf16*>(o.mask);
      epilogue.sums = static_cast<float*>(o.workspace);
    }
    cudaError_t error = kernel_.launch(kernel_.tile_columns, arguments, native);
    if (error == cudaSuccess && problem_.mask_dx) {
      error = conv::LaunchSums(epilogue.sums, gemm_.pixel_tiles(), gemm_.columns, o.sums, native);
    }
    if (error == cudaSuccess) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(kernel_.ToString(), ": ", cudaGetErrorString(error)));
  }

 private:
  const Kernel& kernel_;
  const ConvolutionProblem problem_;
  const conv::Gemm gemm_;
};

class KernelChoice final : public AlgorithmChoice {
 public:
  KernelChoice(int compute_capability, const ConvolutionProblem& problem) : problem_(problem) {
    for (const Kernel& kernel : kKernels) {
      if (compute_capability >= kernel.first && compute_capability <= kernel.last)
        kernels_.push_back(&kernel);
    }
    const int columns = GemmOf(problem).columns;
    const auto order = [columns](const Kernel* kernel) {
      const int tile = kernel->tile_columns;
      return std::tuple(-kernel->first, conv::CeilDiv(columns, tile) * tile, -tile);
    };
    std::sort(kernels_.begin(), kernels_.end(),
              [&order](const Kernel* a, const Kernel* b) { return order(a) < order(b); });
  }

  absl::Status Ask() override { return absl::OkStatus(); }
  size_t size() const override { return kernels_.size(); }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return std::make_unique<TensorCoreConvolution>(*kernels_[index], problem_);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    for (size_t i = 0; i < kernels_.size(); ++i) {
      if (kernels_[i]->ToString() == serialized) return Build(i);
    }
    return absl::NotFoundError(absl::StrCat("no kernel \"", serialized, "\" for this GPU"));
  }

 private:
  const ConvolutionProblem problem_;
  std::vector<const Kernel*> kernels_;
};

}  // namespace

conv::Gemm GemmOf(const ConvolutionProblem& p) {
  conv::Gemm g;
  g.images = static_cast<int>(p.n);
  g.height = static_cast<int>(p.h);
  g.width = static_cast<int>(p.w);
  g.kernel = static_cast<int>(p.kernel);
  g.backward = p.pass == ConvolutionProblem::Pass::kBackwardData;
  std::tie(g.depth, g.columns) = std::pair(static_cast<int>(p.c), static_cast<int>(p.k));
  std::tie(g.in_pitch, g.out_pitch) = std::pair(p.PitchOfX(), p.PitchOfY());
  if (g.backward) {
    std::swap(g.depth, g.columns);
    std::swap(g.in_pitch, g.out_pitch);
  }
  g.mask_pitch = p.PitchOfMask();
  return g;
}

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(int compute_capability,
                                                        const ConvolutionProblem& problem) {
  const char* reason = Reason(problem);
  if (reason == nullptr && compute_capability < 80) reason = "for compute capability 8.0 and later only";
  if (reason != nullptr) {
    return Named(absl::UnimplementedError(absl::StrCat("our tensor core kernels: ", reason)), problem);
  }
  return std::make_unique<KernelChoice>(compute_capability, problem);
}

}  // namespace deeper::tensor_core
