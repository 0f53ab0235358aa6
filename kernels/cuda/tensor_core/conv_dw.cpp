#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/tensor_core/conv_algorithm.h"
#include "kernels/cuda/tensor_core/conv_dw_tiling.h"
#include "kernels/cuda/tensor_core/conv_kernels.h"

namespace deeper::tensor_core {
namespace {

class WeightGradient final : public KernelAlgorithm {
 public:
  WeightGradient(std::string name, int tile_channels, const ConvolutionProblem& problem)
      : KernelAlgorithm(std::move(name), problem, conv::kDwTaps), tile_channels_(tile_channels) {
    workspace_bytes_ = sizeof(float) * static_cast<size_t>(conv::DwPartialSums(gemm_, tile_channels));
  }

  // Boxes of x may overlap the channels of the next tile, but there are none after the last channel. SMs
  // without a block in the last round count as if they had one.
  KernelWork ExpectedWork() const override {
    const conv::DwTiles tiles = conv::DwTilesOf(gemm_, tile_channels_);
    int64_t channels = 0;  // read, by all tiles of channels
    for (int first = 0; first < gemm_.depth; first += tile_channels_) {
      channels += std::min(conv::DwBoxes(tile_channels_) * conv::kStepDepth, gemm_.depth - first);
    }
    const int64_t filters = std::min(conv::kTileFilters, gemm_.columns) * int64_t{tiles.of_channels};
    const int64_t step_bytes =
        int64_t{sizeof(bf16)} * (filters * conv::kTilePixels + channels * conv::StepPixels(conv::kDwTaps));
    KernelWork work =
        StepsOf(absl::StrCat("WeightGradientSm90<", tile_channels_, ">"), tiles.blocks(), tiles.steps, 0, 0);
    work.l2_bytes = step_bytes * tiles.of_filters * tiles.of_rows * tiles.splits * tiles.steps;
    work.macs = int64_t{tiles.rounds()} * conv::kDwSms * tiles.steps * conv::kTilePixels *
                conv::kTileFilters * conv::kDwTaps * tile_channels_;
    work.kernels = 2;  // LaunchSplitSums
    work.partial_bytes = static_cast<int64_t>(workspace_bytes_);
    return work;
  }

 private:
  cudaError_t Launch(const PlanOperands& o, cudaStream_t stream) override {
    return conv::LaunchWeightGradientSm90(
        tile_channels_,
        {gemm_, static_cast<const bf16*>(o.a), static_cast<const bf16*>(o.b),
         static_cast<float*>(o.workspace), static_cast<float*>(o.d)},
        stream);
  }

  const int tile_channels_;
};

}  // namespace

std::unique_ptr<Algorithm> MakeWeightGradient(std::string name, int tile_channels,
                                              const ConvolutionProblem& problem) {
  return std::make_unique<WeightGradient>(std::move(name), tile_channels, problem);
}

}  // namespace deeper::tensor_core
