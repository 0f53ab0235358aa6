// An op without parameters that uses one oneDNN primitive per direction.
#pragma once

#include <algorithm>
#include <utility>

#include "kernels/cpu/onednn.h"
#include "kernels/ops/join.h"

namespace deeper {

class PrimitiveOp final : public Op {
 public:
  // needs: all fields except memory sizes. If Backward reads y, y masks dy.
  PrimitiveOp(OpNeeds needs, onednn::ForwardBackward passes) : passes_(std::move(passes)) {
    needs_ = std::move(needs);
    needs_.saved_bytes = passes_.forward.ArgBytes(DNNL_ARG_WORKSPACE);
    needs_.workspace_bytes = std::max(passes_.forward.scratch_bytes(), passes_.backward.scratch_bytes());
  }

  void Bind(const OpBinding& b) override {
    Op::Bind(b);
    const bool dx = !needs_.dx_parts.empty();
    const std::initializer_list<std::pair<int, void*>> args = {{DNNL_ARG_SRC, b.x},
                                                               {DNNL_ARG_DST, b.y},
                                                               {DNNL_ARG_WORKSPACE, b.saved},
                                                               {DNNL_ARG_DIFF_DST, dx ? b.dy[0] : nullptr},
                                                               {DNNL_ARG_DIFF_SRC, dx ? b.dx[0] : nullptr}};
    passes_.forward.Bind(args, b.workspace);
    passes_.backward.Bind(args, b.workspace);
  }
  void Forward() override { passes_.forward.Run(); }
  void Backward() override {
    if (needs_.dx_parts.empty()) return;
    JoinGradientsCpu(binding_.dy, needs_.backward_reads_y ? binding_.y : nullptr, needs_.y, binding_.dy[0]);
    passes_.backward.Run();
  }

 private:
  onednn::ForwardBackward passes_;
};

}  // namespace deeper
