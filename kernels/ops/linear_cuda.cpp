#include <algorithm>

#include "kernels/base/status.h"
#include "kernels/cuda/base/cuda_device.h"
#include "kernels/ops/join.h"
#include "kernels/ops/linear.h"

namespace deeper {
namespace {

enum { kWeight = 0, kBias = 1 };

class LinearCuda final : public Op {
 public:
  LinearCuda(const LinearParams& params, Device& device) : relu_(params.relu), device_(AsCuda(device)) {}
  absl::Status Prepare(const OpSetup& s);

  void Forward() override {
    forward_->Run({.a = binding_.x,
                   .b = Param(kWeight),
                   .d = binding_.y,
                   .workspace = binding_.workspace,
                   .bias = Param(kBias)});
  }
  void Backward() override {
    void* const dy = binding_.dy[0];
    JoinGradientsCuda(device_, binding_.dy, relu_ ? binding_.y : nullptr, needs_.y, dy, binding_.grads[kBias],
                      binding_.workspace);
    if (backward_data_ != nullptr)
      backward_data_->Run(
          {.a = dy, .b = Param(kWeight), .d = binding_.dx[0], .workspace = binding_.workspace});
    backward_weights_->Run(
        {.a = dy, .b = binding_.x, .d = binding_.grads[kWeight], .workspace = binding_.workspace});
  }

 private:
  absl::Status MakePlan(const MatmulProblem& problem, std::unique_ptr<CudaPlan>& plan) {
    ASSIGN_OR_RETURN(plan, device_.Plan(problem));
    needs_.workspace_bytes = std::max(needs_.workspace_bytes, plan->workspace_bytes());
    return absl::OkStatus();
  }

  bool relu_;
  CudaDevice& device_;
  std::unique_ptr<CudaPlan> forward_, backward_data_, backward_weights_;
};

absl::Status LinearCuda::Prepare(const OpSetup& s) {
  const bool training = s.options.training;
  needs_ = s.Needs({s.shape.y, s.x.dtype});
  for (const ParamSpec& spec : s.shape.params) needs_.params.push_back(MakeParamLayout(spec, 1));
  needs_.backward_reads_x = training;
  needs_.backward_reads_y = training && relu_;

  using Pass = ConvolutionProblem::Pass;
  const auto product = [&s](Pass pass) {
    return ProductOf(pass, s.x.dtype, s.x.shape.n, s.x.shape.c, s.shape.y.c);
  };
  MatmulProblem y = product(Pass::kForward);
  y.bias = true;
  y.relu = relu_;
  RETURN_IF_ERROR(MakePlan(y, forward_));
  if (s.wants_dx()) RETURN_IF_ERROR(MakePlan(product(Pass::kBackwardData), backward_data_));
  if (!training) return absl::OkStatus();
  needs_.workspace_bytes = std::max(needs_.workspace_bytes, JoinWorkspaceBytes(needs_.y));
  return MakePlan(product(Pass::kBackwardWeights), backward_weights_);
}

}  // namespace

MadeOp MakeCuda(const LinearParams& params, const OpSetup& setup) {
  auto op = std::make_unique<LinearCuda>(params, setup.device);
  RETURN_IF_ERROR(op->Prepare(setup));
  return op;
}

}  // namespace deeper
