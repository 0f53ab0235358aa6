#include "kernels/base/status.h"
#include "kernels/ops/lrn.h"
#include "kernels/ops/primitive_op_cpu.h"

namespace deeper {

MadeOp MakeCpu(const LrnParams& params, const OpSetup& s) {
  OpNeeds needs = s.Needs(s.x);
  needs.backward_reads_x = s.wants_dx();
  // The fast code of oneDNN 2.6 computes wrong gradients here.
  constexpr int64_t kVector = 16;
  const bool wrong = s.x.layout == Layout::kNhwc && s.x.dtype == DType::kBf16 && s.x.shape.c % kVector != 0;
  ASSIGN_OR_RETURN(auto passes, onednn::MakeLrn(onednn::DescOf(s.x), params.size, params.alpha, params.beta,
                                                params.k, {s.options.training, s.wants_dx()}, wrong));
  return std::make_unique<PrimitiveOp>(std::move(needs), std::move(passes));
}

}  // namespace deeper
