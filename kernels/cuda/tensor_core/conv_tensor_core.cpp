#include "kernels/cuda/tensor_core/conv_tensor_core.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"

namespace deeper::tensor_core {
namespace {

using Pass = ConvolutionProblem::Pass;

constexpr uintptr_t kAlignment = 16;
constexpr int64_t kMaxKernel = 255;  // TMA stores corners as bytes

// Returns the reason why the kernels do not support the problem; nullptr if they do.
const char* Reason(const ConvolutionProblem& p) {
  if (p.dtype != DType::kBf16) return "for bf16 only";
  if (p.pool_x && (p.kernel != 1 || p.pass == Pass::kBackwardData)) return "pooled inputs for 1x1 only";
  if (!p.pool_x && p.pass == Pass::kBackwardWeights) return "gradients of weights for pooled inputs only";
  if (p.stride != 1) return "for stride 1 only";
  if (p.kernel % 2 == 0 || p.pad != p.kernel / 2 || p.kernel > kMaxKernel) {
    return "for odd filters with \"same\" padding only";
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

class KernelAlgorithm : public Algorithm {
 public:
  KernelAlgorithm(std::string name, const ConvolutionProblem& problem)
      : problem_(problem), gemm_(GemmOf(problem)), name_(std::move(name)) {}

  bool needs_check() const override { return true; }
  absl::StatusOr<std::string> Serialize() const override { return name_; }

  absl::Status Enqueue(const PlanOperands& o, Stream stream) override {
    if (!IsAligned(o.a) || !IsAligned(o.b) || !IsAligned(o.d) || !IsAligned(o.mask) || !IsAligned(o.argmax)) {
      return InvalidArgument(name_, ": operands not aligned to 16 bytes");
    }
    const cudaError_t error = Launch(o, static_cast<cudaStream_t>(stream.native));
    if (error == cudaSuccess) return absl::OkStatus();
    return Internal(name_, ": ", cudaGetErrorString(error));
  }

 protected:
  virtual cudaError_t Launch(const PlanOperands& operands, cudaStream_t stream) = 0;

  const ConvolutionProblem problem_;
  const conv::Gemm gemm_;

 private:
  const std::string name_;
};

constexpr int kBlockWarps = 8;

// What `blocks` blocks execute that run `steps` steps each.
KernelWork StepsOf(const std::string& code, int64_t blocks, int steps, int64_t l2_bytes, int64_t macs) {
  KernelWork work = WorkOf(code, blocks * kBlockWarps * 32, steps);
  work.waits = 0;  // stages are filled while others are multiplied
  work.l2_bytes = blocks * steps * l2_bytes;
  work.macs = blocks * steps * macs;
  return work;
}

using LaunchConvolution = cudaError_t (*)(int tile_columns, const conv::Arguments& arguments,
                                          cudaStream_t stream);

class TensorCoreConvolution final : public KernelAlgorithm {
 public:
  // `code` is the name of the kernel up to its columns (KernelCost).
  TensorCoreConvolution(std::string name, const char* code, LaunchConvolution launch, int tile_columns,
                        const ConvolutionProblem& problem)
      : KernelAlgorithm(std::move(name), problem),
        code_(absl::StrCat(code, tile_columns, ">")),
        launch_(launch),
        tile_columns_(tile_columns) {
    if (problem.mask_dx) {
      workspace_bytes_ =
          sizeof(float) * static_cast<size_t>(gemm_.pixel_tiles()) * static_cast<size_t>(gemm_.columns);
    }
  }

  // A pooled tile reads each pixel from L2 twice, for three rows of windows; L1 serves the rest.
  KernelWork ExpectedWork() const override {
    const int slices = conv::CeilDiv(gemm_.depth, conv::kSliceDepth);
    const int64_t slice = int64_t{conv::kTilePixels} * tile_columns_ * conv::kSliceDepth;
    const int steps = gemm_.steps(), more_pixels = problem_.pool_x ? conv::kPixelBytes : 0;
    KernelWork work = StepsOf(code_, conv::Blocks(gemm_, tile_columns_), steps,
                              conv::StageBytes(tile_columns_) + more_pixels, 0);
    work.macs = int64_t{conv::Blocks(gemm_, tile_columns_)} * gemm_.taps() * slices * slice;
    return work;
  }

 private:
  cudaError_t Launch(const PlanOperands& o, cudaStream_t stream) override {
    conv::Arguments arguments = {gemm_, static_cast<const bf16*>(o.a), static_cast<const bf16*>(o.b), {}};
    arguments.positions = o.argmax;
    conv::Epilogue& epilogue = arguments.epilogue;
    epilogue.out = static_cast<bf16*>(o.d);
    if (problem_.bias && problem_.wide_bias) epilogue.wide_bias = static_cast<const float*>(o.bias);
    if (problem_.bias && !problem_.wide_bias) epilogue.bias = static_cast<const bf16*>(o.bias);
    epilogue.relu = problem_.relu;
    if (problem_.mask_dx) {
      epilogue.mask = static_cast<const bf16*>(o.mask);
      epilogue.sums = static_cast<float*>(o.workspace);
    }
    const cudaError_t error = launch_(tile_columns_, arguments, stream);
    if (error != cudaSuccess || !problem_.mask_dx) return error;
    return conv::LaunchSums(epilogue.sums, gemm_.pixel_tiles(), gemm_.columns, o.sums, stream);
  }

  const std::string code_;
  const LaunchConvolution launch_;
  const int tile_columns_;
};

class PooledWeightGradient final : public KernelAlgorithm {
 public:
  PooledWeightGradient(std::string name, int tile_filters, const ConvolutionProblem& problem)
      : KernelAlgorithm(std::move(name), problem), tile_filters_(tile_filters) {
    workspace_bytes_ = sizeof(float) * static_cast<size_t>(conv::PartialSums(gemm_, tile_filters));
  }

  KernelWork ExpectedWork() const override {
    const conv::GradientTiles tiles = conv::GradientTilesOf(gemm_, tile_filters_);
    const int64_t pixels = conv::kStepPixels * conv::kTileChannels;
    return StepsOf(absl::StrCat("PooledGradientSm80<", tile_filters_, ">"), tiles.count() * tiles.splits,
                   tiles.steps, conv::GradientStageBytes(tile_filters_) + pixels * int64_t{sizeof(bf16)},
                   pixels * tile_filters_);
  }

 private:
  cudaError_t Launch(const PlanOperands& o, cudaStream_t stream) override {
    return conv::LaunchPooledGradientSm80(
        tile_filters_,
        {gemm_, static_cast<const bf16*>(o.a), static_cast<const bf16*>(o.b),
         static_cast<float*>(o.workspace), static_cast<float*>(o.d)},
        stream);
  }

  const int tile_filters_;
};

enum class Work { kConvolution, kPooled, kPooledGradient };
Work WorkOf(const ConvolutionProblem& p) {
  if (!p.pool_x) return Work::kConvolution;
  return p.pass == Pass::kForward ? Work::kPooled : Work::kPooledGradient;
}

struct Kernel {
  const char* name;
  Work work;
  int first, last;           // compute capability
  int rows, columns;         // per tile
  LaunchConvolution launch;  // nullptr for gradients

  std::string ToString() const { return absl::StrCat("deeper ", name, " ", rows, "x", columns); }
};
constexpr int kNewest = 1000, kPixels = conv::kTilePixels, kChannels = conv::kTileChannels;
constexpr Kernel kKernels[] = {
    {"sm90", Work::kConvolution, 90, 90, kPixels, 192, conv::LaunchSm90},
    {"sm90", Work::kConvolution, 90, 90, kPixels, 128, conv::LaunchSm90},
    {"sm90", Work::kConvolution, 90, 90, kPixels, 64, conv::LaunchSm90},
    {"sm80", Work::kConvolution, 80, kNewest, kPixels, 128, conv::LaunchSm80},
    {"sm80", Work::kConvolution, 80, kNewest, kPixels, 64, conv::LaunchSm80},
    {"sm80 pooled", Work::kPooled, 80, kNewest, kPixels, 128, conv::LaunchPooledSm80},
    {"sm80 pooled", Work::kPooled, 80, kNewest, kPixels, 64, conv::LaunchPooledSm80},
    {"sm80 pooled gradient", Work::kPooledGradient, 80, kNewest, 128, kChannels, nullptr},
    {"sm80 pooled gradient", Work::kPooledGradient, 80, kNewest, 64, kChannels, nullptr},
};

// The number of elements written, including parts of tiles outside the output.
int64_t PaddedElements(const Kernel& kernel, const conv::Gemm& g) {
  const bool gradient = kernel.work == Work::kPooledGradient;
  const int rows = gradient ? g.columns : g.pixels(), columns = gradient ? g.depth : g.columns;
  return int64_t{conv::CeilDiv(rows, kernel.rows)} * kernel.rows * conv::CeilDiv(columns, kernel.columns) *
         kernel.columns;
}

class KernelChoice final : public AlgorithmChoice {
 public:
  KernelChoice(int compute_capability, const ConvolutionProblem& problem,
               const std::set<std::string>& excluded)
      : problem_(problem) {
    for (const Kernel& kernel : kKernels) {
      if (kernel.work == WorkOf(problem) && compute_capability >= kernel.first &&
          compute_capability <= kernel.last && !excluded.contains(kernel.ToString())) {
        kernels_.push_back(&kernel);
      }
    }
    const auto order = [g = GemmOf(problem)](const Kernel* kernel) {
      return std::tuple(-kernel->first, PaddedElements(*kernel, g), -kernel->rows * kernel->columns);
    };
    std::sort(kernels_.begin(), kernels_.end(),
              [&order](const Kernel* a, const Kernel* b) { return order(a) < order(b); });
  }

  absl::Status Ask() override { return absl::OkStatus(); }
  size_t size() const override { return kernels_.size(); }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    const Kernel& kernel = *kernels_[index];
    if (kernel.work == Work::kPooledGradient) {
      return std::make_unique<PooledWeightGradient>(kernel.ToString(), kernel.rows, problem_);
    }
    const bool backward = problem_.pass == Pass::kBackwardData;
    const char* const code = kernel.first == 90 ? (backward ? "ConvSm90<true, " : "ConvSm90<false, ")
                             : kernel.work == Work::kPooled ? "ConvSm80<2, "
                             : backward                     ? "ConvSm80<1, "
                                                            : "ConvSm80<0, ";
    return std::make_unique<TensorCoreConvolution>(kernel.ToString(), code, kernel.launch, kernel.columns,
                                                   problem_);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    for (size_t i = 0; i < kernels_.size(); ++i) {
      if (kernels_[i]->ToString() == serialized) return Build(i);
    }
    return NotFound("no kernel \"", serialized, "\" for this GPU");
  }

 private:
  const ConvolutionProblem problem_;
  std::vector<const Kernel*> kernels_;
};

}  // namespace

std::string Version() {
  return DEEPER_KERNELS_HASH;
}

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Choose(int compute_capability,
                                                        const ConvolutionProblem& problem,
                                                        const std::set<std::string>& excluded) {
  const char* reason = Reason(problem);
  if (reason == nullptr && compute_capability < 80) reason = "for compute capability 8.0 and later only";
  if (reason != nullptr) {
    return Named(Unimplemented("our tensor core kernels: ", reason), problem);
  }
  auto choice = std::make_unique<KernelChoice>(compute_capability, problem, excluded);
  if (choice->size() == 0) return Named(Unimplemented("our tensor core kernels: all are excluded"), problem);
  return choice;
}

}  // namespace deeper::tensor_core
