#include "kernels/cuda/tensor_core/conv_tensor_core.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/plans/cuda_problem.h"
#include "kernels/cuda/tensor_core/conv_algorithm.h"
#include "kernels/cuda/tensor_core/conv_dw_tiling.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"
#include "kernels/cuda/tensor_core/conv_pool_tiling.h"
#include "kernels/cuda/tensor_core/conv_stem.h"

namespace deeper::tensor_core {
namespace {

using Pass = ConvolutionProblem::Pass;

constexpr int64_t kMaxKernel = 255;  // TMA stores corners as bytes

conv::Stem StemOf(const ConvolutionProblem& p) {
  return {static_cast<int>(p.n), static_cast<int>(p.h), static_cast<int>(p.w)};
}

// Returns the reason why the kernels do not support the problem; nullptr if they do.
const char* Reason(const ConvolutionProblem& p) {
  if (p.dtype != DType::kBf16) return "for bf16 only";
  if (p.pool_y) {
    const bool activates = p.bias && !p.wide_bias && p.relu;
    const bool fits = p.kernel == conv::kStemKernel && p.stride == 2 && p.pad == conv::kStemPad &&
                      p.k == conv::kStemFilters && p.c == conv::kStoredChannels && p.PitchOfX() == p.c &&
                      p.PitchOfY() == p.k && p.pass != Pass::kBackwardData &&
                      (activates || p.pass == Pass::kBackwardWeights);
    if (!fits) return "pooled outputs for 64 filters 7x7 of stride 2 only, dense and with ReLU";
    return p.n * p.h * p.w > std::numeric_limits<int>::max() / 2 ? "too many pixels" : nullptr;
  }
  if (p.pool_x && (p.kernel != 1 || p.pass == Pass::kBackwardData)) return "pooled inputs for 1x1 only";
  if (!p.pool_x && p.pass == Pass::kBackwardWeights && (!p.wide_dw || p.kernel != conv::kDwTaps))
    return "gradients of weights for pooled inputs, or for 3x3 in fp32, only";
  if (p.stride != 1) return "for stride 1 only";
  if (p.kernel % 2 == 0 || p.pad != p.kernel / 2 || p.kernel > kMaxKernel) {
    return "for odd filters with \"same\" padding only";
  }
  for (const int64_t channels : {p.c, p.k, p.PitchOfX(), p.PitchOfY(), p.mask_dx ? p.PitchOfMask() : 0}) {
    if (channels % conv::kChunk != 0) return "for multiples of 8 channels only";
  }
  if (p.n * p.h * (p.w + p.pad) > std::numeric_limits<int>::max() - conv::kTilePixels)
    return "too many pixels";
  if (p.k * p.kernel * p.kernel * p.c > std::numeric_limits<int>::max()) return "too many weights";
  return nullptr;
}

using LaunchConvolution = cudaError_t (*)(int tile_columns, const conv::Arguments& arguments,
                                          cudaStream_t stream);

class TensorCoreConvolution final : public KernelAlgorithm {
 public:
  // `code` is the name of the kernel (KernelCost).
  TensorCoreConvolution(std::string name, std::string code, LaunchConvolution launch, int tile_columns,
                        int across, const ConvolutionProblem& problem)
      : KernelAlgorithm(std::move(name), problem, across),
        code_(std::move(code)),
        launch_(launch),
        tile_columns_(tile_columns) {
    if (problem.mask_dx) {
      workspace_bytes_ =
          sizeof(float) * static_cast<size_t>(gemm_.pixel_tiles()) * static_cast<size_t>(gemm_.columns);
    }
  }

  // Zeros are not read. A pooled tile reads each pixel from L2 twice, for three rows of windows; L1 serves
  // the rest.
  KernelWork ExpectedWork() const override {
    const int64_t blocks = conv::Blocks(gemm_, tile_columns_), taps = gemm_.taps();
    const int64_t pixels = conv::StepPixels(gemm_.across) * (problem_.pool_x ? 2 : 1);
    const int64_t slices = conv::CeilDiv(gemm_.depth, conv::kSliceDepth);
    KernelWork work = StepsOf(code_, blocks, gemm_.steps(), 0, 0);
    work.l2_bytes = (blocks * pixels * (taps / gemm_.across) + gemm_.pixel_tiles() * gemm_.columns * taps) *
                    gemm_.depth * int64_t{sizeof(bf16)};
    work.macs = blocks * taps * slices * conv::kTilePixels * tile_columns_ * conv::kSliceDepth;
    if (problem_.mask_dx) work.kernels = 2;  // LaunchSums
    work.partial_bytes = static_cast<int64_t>(workspace_bytes_);
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
    KernelWork work = StepsOf(absl::StrCat("PooledGradientSm80<", tile_filters_,
                                           conv::ArePairs(gemm_, tile_filters_) ? ", true>" : ", false>"),
                              tiles.count() * tiles.splits, tiles.steps,
                              conv::GradientStageBytes(tile_filters_) + pixels * int64_t{sizeof(bf16)},
                              pixels * tile_filters_);
    work.kernels = 2;  // LaunchSplitSums
    work.partial_bytes = static_cast<int64_t>(workspace_bytes_);
    return work;
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

class StemConvolution final : public KernelAlgorithm {
 public:
  StemConvolution(std::string name, const ConvolutionProblem& problem)
      : KernelAlgorithm(std::move(name), problem), stem_(StemOf(problem)) {}

  // Whole pixels are read, also the channels that are not copied.
  KernelWork ExpectedWork() const override {
    const int64_t strips = stem_.strips(), steps = stem_.steps();
    const int64_t rows = 2 * (steps - 1) + conv::kStemKernel;  // of the image
    const int64_t stored = conv::kStoredChannels * int64_t{sizeof(bf16)};
    KernelWork work =
        WorkOf("ConvStemSm80", stem_.blocks() * int64_t{conv::kStemThreads}, static_cast<double>(steps));
    work.waits = 0;  // rows are copied while others are multiplied
    work.l2_bytes = stored * (strips * rows * conv::kRowPixels +
                              stem_.blocks() * problem_.k * problem_.kernel * problem_.kernel);
    work.macs = strips * steps * conv::kStripFragments * 16 * conv::kStemFilters * conv::kStemSlices *
                conv::kSliceDepth;
    return work;
  }

 private:
  cudaError_t Launch(const PlanOperands& o, cudaStream_t stream) override {
    return conv::LaunchStemSm80({stem_,
                                 static_cast<const bf16*>(o.a),
                                 static_cast<const bf16*>(o.b),
                                 static_cast<const bf16*>(o.bias),
                                 {static_cast<bf16*>(o.d), o.argmax}},
                                stream);
  }

  const conv::Stem stem_;
};

class StemWeightGradient final : public KernelAlgorithm {
 public:
  StemWeightGradient(std::string name, const ConvolutionProblem& problem)
      : KernelAlgorithm(std::move(name), problem), stem_(StemOf(problem)) {
    workspace_bytes_ = sizeof(float) * static_cast<size_t>(conv::StemSplits(stem_)) * conv::kStemSums;
  }

  // The rows of windows are read twice.
  KernelWork ExpectedWork() const override {
    const int64_t bands = conv::BandCount(stem_), splits = conv::StemSplits(stem_);
    KernelWork work = WorkOf("StemGradientSm80", splits * conv::kBandThreads, 2 * conv::BandsOfSplit(stem_));
    work.waits = 0;  // a band is spread while another one is multiplied
    work.l2_bytes =
        bands * (conv::kNewRows * conv::kBandRowPixels * conv::kStoredChannels * int64_t{sizeof(bf16)} +
                 2 * conv::kBandQuads * conv::kStemFilters * int64_t{sizeof(bf16) + 1});
    work.macs = bands * 2 * conv::kBandPlaces * conv::kStemFilters * conv::kStemSlices * conv::kSliceDepth;
    work.kernels = 2;  // AddStemSums
    work.partial_bytes = static_cast<int64_t>(workspace_bytes_);
    return work;
  }

 private:
  cudaError_t Launch(const PlanOperands& o, cudaStream_t stream) override {
    return conv::LaunchStemGradientSm80({stem_,
                                         static_cast<const bf16*>(o.a),
                                         {static_cast<const bf16*>(o.b), o.argmax},
                                         static_cast<float*>(o.workspace),
                                         static_cast<float*>(o.d),
                                         o.sums},
                                        stream);
  }

  const conv::Stem stem_;
};

enum class Work { kConvolution, kGradient, kPooled, kPooledGradient, kStem, kStemGradient };
Work WorkOf(const ConvolutionProblem& p) {
  if (p.pool_y) return p.pass == Pass::kForward ? Work::kStem : Work::kStemGradient;
  if (!p.pool_x) return p.pass == Pass::kBackwardWeights ? Work::kGradient : Work::kConvolution;
  return p.pass == Pass::kForward ? Work::kPooled : Work::kPooledGradient;
}

struct Kernel {
  const char* name;
  Work work;
  int first, last;           // compute capability
  int rows, columns;         // per tile
  LaunchConvolution launch;  // of kConvolution and kPooled
  int across = 1;            // taps per step

  std::string ToString() const { return absl::StrCat("deeper ", name, " ", rows, "x", columns); }
};
constexpr int kNewest = 1000, kPixels = conv::kTilePixels, kChannels = conv::kTileChannels;
constexpr int kStripPlaces = conv::kStripFragments * 16;
constexpr Kernel kKernels[] = {
    {"sm80", Work::kConvolution, 80, kNewest, kPixels, 128, conv::LaunchSm80},
    {"sm80", Work::kConvolution, 80, kNewest, kPixels, 64, conv::LaunchSm80},
    {"sm80 pooled", Work::kPooled, 80, kNewest, kPixels, 128, conv::LaunchPooledSm80},
    {"sm80 pooled", Work::kPooled, 80, kNewest, kPixels, 64, conv::LaunchPooledSm80},
    {"sm80 pooled gradient", Work::kPooledGradient, 80, kNewest, 128, kChannels, nullptr},
    {"sm80 pooled gradient", Work::kPooledGradient, 80, kNewest, 64, kChannels, nullptr},
    {"sm80 stem", Work::kStem, 80, kNewest, kStripPlaces, conv::kStemFilters, nullptr},
    {"sm80 stem gradient", Work::kStemGradient, 80, kNewest, conv::kStemFilters, conv::kRowDepth, nullptr},
};

template <int kAcross>
void AddSm90(bool backward, std::vector<Kernel>& kernels) {
  const auto add = [&kernels](const auto& sizes) {
    for (const int columns : sizes.kAll) {
      kernels.push_back({kAcross == 1 ? "sm90" : "sm90 rows", Work::kConvolution, 90, 90, kPixels, columns,
                         conv::LaunchSm90, kAcross});
    }
  };
  if (backward) {
    add(conv::Sm90Tiles<kAcross, true>());
  } else {
    add(conv::Sm90Tiles<kAcross, false>());
  }
}

// All kernels for a problem, also those for other GPUs.
std::vector<Kernel> KernelsFor(const ConvolutionProblem& p) {
  std::vector<Kernel> kernels;
  for (const Kernel& kernel : kKernels) {
    if (kernel.work == WorkOf(p)) kernels.push_back(kernel);
  }
  if (WorkOf(p) == Work::kGradient) {
    for (const int channels : conv::DwChannels::kAll) {
      kernels.push_back({"sm90 gradient", Work::kGradient, 90, 90, conv::kTileFilters, channels, nullptr});
    }
  }
  if (WorkOf(p) != Work::kConvolution) return kernels;
  const bool backward = p.pass == Pass::kBackwardData;
  AddSm90<1>(backward, kernels);
  if (p.kernel == 3) AddSm90<3>(backward, kernels);
  if (p.kernel == 5) AddSm90<5>(backward, kernels);
  return kernels;
}

// The name of a kernel's code (KernelCost).
std::string CodeOf(const Kernel& kernel, bool backward) {
  if (kernel.first == 90) {
    return absl::StrCat("ConvSm90<", backward ? "true, " : "false, ", kernel.columns, ", ", kernel.across,
                        ">");
  }
  const char* const input = kernel.work == Work::kPooled ? "2, " : backward ? "1, " : "0, ";
  return absl::StrCat("ConvSm80<", input, kernel.columns, ">");
}

class KernelChoice final : public AlgorithmChoice {
 public:
  KernelChoice(int compute_capability, const ConvolutionProblem& problem,
               const std::set<std::string>& excluded)
      : problem_(problem) {
    std::vector<Kernel> kernels = KernelsFor(problem);
    std::erase_if(kernels, [compute_capability](const Kernel& kernel) {
      return compute_capability < kernel.first || compute_capability > kernel.last;
    });
    SortByWork(kernels);
    std::map<std::string, int> proposed;  // by name
    for (const Kernel& kernel : kernels) {
      if (++proposed[kernel.name] <= kMostOfAKind && !excluded.contains(kernel.ToString()))
        kernels_.push_back(kernel);
    }
  }

  absl::Status Ask() override { return absl::OkStatus(); }
  size_t size() const override { return kernels_.size(); }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return Build(kernels_[index]);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    for (size_t i = 0; i < kernels_.size(); ++i) {
      if (kernels_[i].ToString() == serialized) return Build(i);
    }
    return NotFound("no kernel \"", serialized, "\" for this GPU");
  }

 private:
  // More would make tuning slow.
  static constexpr int kMostOfAKind = 3;
  // The elements that a GPU multiplies in the time in which its tiles read a byte from L2, roughly. Only the
  // order of trials and plans without a GPU depend on it.
  static constexpr int64_t kMacsPerByte = 34;

  std::unique_ptr<Algorithm> Build(const Kernel& kernel) const {
    if (kernel.work == Work::kPooledGradient) {
      return std::make_unique<PooledWeightGradient>(kernel.ToString(), kernel.rows, problem_);
    }
    if (kernel.work == Work::kGradient)
      return MakeWeightGradient(kernel.ToString(), kernel.columns, problem_);
    if (kernel.work == Work::kStem) return std::make_unique<StemConvolution>(kernel.ToString(), problem_);
    if (kernel.work == Work::kStemGradient)
      return std::make_unique<StemWeightGradient>(kernel.ToString(), problem_);
    const std::string code = CodeOf(kernel, problem_.pass == Pass::kBackwardData);
    return std::make_unique<TensorCoreConvolution>(kernel.ToString(), code, kernel.launch, kernel.columns,
                                                   kernel.across, problem_);
  }

  // Those for the newest GPU first, then those with the least work, then the largest tiles.
  void SortByWork(std::vector<Kernel>& kernels) const {
    const auto key = [this](const Kernel& kernel) {
      const KernelWork work = Build(kernel)->ExpectedWork();
      return std::tuple(-kernel.first, std::max(work.macs, kMacsPerByte * work.l2_bytes), work.macs,
                        -kernel.rows * kernel.columns);
    };
    std::sort(kernels.begin(), kernels.end(),
              [&key](const Kernel& a, const Kernel& b) { return key(a) < key(b); });
  }

  const ConvolutionProblem problem_;
  std::vector<Kernel> kernels_;
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
  if (choice->size() == 0) {
    return Named(Unimplemented("our tensor core kernels: none for this GPU, or all are excluded"), problem);
  }
  return choice;
}

}  // namespace deeper::tensor_core
