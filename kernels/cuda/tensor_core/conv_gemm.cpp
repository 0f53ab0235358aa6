#include <tuple>
#include <utility>

#include "kernels/cuda/tensor_core/conv_tensor_core.h"

namespace deeper::tensor_core {

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

}  // namespace deeper::tensor_core
