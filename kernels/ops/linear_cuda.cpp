#include <algorithm>

#include "kernels/cuda/base/cuda_device.h"
#include "kernels/ops/join.h"
#include "kernels/ops/linear.h"

namespace deeper {
namespace {

enum { kWeight = 0, kBias = 1 };

struct Plans {
  std::unique_ptr<CudaPlan> forward, backward_data, backward_weights;
};

class LinearCuda final : public Op {
 public:
  LinearCuda(const LinearParams& params, const OpShape& shape, const TensorDesc& x, const OpOptions& options,
             Plans plans, Device& device)
      : relu_(params.relu), plans_(std::move(plans)), device_(device) {
    needs_.x = x;
    needs_.y = {shape.y, x.dtype};
    if (options.training && options.want_dx) needs_.dx_parts = {x};
    for (const ParamSpec& spec : shape.params) needs_.params.push_back(MakeParamLayout(spec, 1));
    needs_.backward_reads_x = options.training;
    needs_.backward_reads_y = options.training && relu_;
    for (const auto* plan : {&plans_.forward, &plans_.backward_data, &plans_.backward_weights}) {
      if (*plan != nullptr)
        needs_.workspace_bytes = std::max(needs_.workspace_bytes, (*plan)->workspace_bytes());
    }
    if (options.training)
      needs_.workspace_bytes = std::max(needs_.workspace_bytes, JoinWorkspaceBytes(needs_.y));
  }

  void Forward() override {
    plans_.forward->Run({.a = binding_.x,
                         .b = Param(kWeight),
                         .d = binding_.y,
                         .workspace = binding_.workspace,
                         .bias = Param(kBias)});
  }
  void Backward() override {
    void* const dy = binding_.dy[0];
    JoinGradientsCuda(device_, binding_.dy, relu_ ? binding_.y : nullptr, needs_.y, dy, binding_.grads[kBias],
                      binding_.workspace);
    if (plans_.backward_data != nullptr)
      plans_.backward_data->Run(
          {.a = dy, .b = Param(kWeight), .d = binding_.dx[0], .workspace = binding_.workspace});
    plans_.backward_weights->Run(
        {.a = dy, .b = binding_.x, .d = binding_.grads[kWeight], .workspace = binding_.workspace});
  }

 private:
  // A parameter in the type of the activations.
  const void* Param(size_t i) const {
    return needs_.x.dtype == DType::kF32 ? binding_.params[i] : binding_.narrow_params[i];
  }

  bool relu_;
  Plans plans_;
  Device& device_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Op>> MakeLinearCuda(const LinearParams& params, const OpShape& shape,
                                                   const TensorDesc& x, const OpOptions& options,
                                                   Device& device) {
  const int64_t rows = x.shape.n, in = x.shape.c, out = params.out_features;
  Plans plans;
  absl::Status status;
  const auto prepare = [&](const MatmulProblem& problem, std::unique_ptr<CudaPlan>& plan) {
    absl::StatusOr<std::unique_ptr<CudaPlan>> made = AsCuda(device).Plan(problem);
    status.Update(made.status());
    if (made.ok()) plan = *std::move(made);
  };
  MatmulProblem y = {.m = rows, .n = out, .k = in, .in = x.dtype, .out = x.dtype};  // x w^T + b
  y.transpose_b = true;
  y.a_stride = in, y.b_stride = in, y.d_stride = out;
  y.bias = true;
  y.relu = params.relu;
  prepare(y, plans.forward);
  if (options.training && options.want_dx) {
    MatmulProblem dx = {.m = rows, .n = in, .k = out, .in = x.dtype, .out = x.dtype};  // dy w
    dx.a_stride = out, dx.b_stride = in, dx.d_stride = in;
    prepare(dx, plans.backward_data);
  }
  if (options.training) {
    MatmulProblem dw = {.m = out, .n = in, .k = rows, .in = x.dtype, .out = DType::kF32};  // dy^T x
    dw.transpose_a = true;
    dw.a_stride = out, dw.b_stride = in, dw.d_stride = in;
    prepare(dw, plans.backward_weights);
  }
  if (!status.ok()) return status;
  return std::make_unique<LinearCuda>(params, shape, x, options, std::move(plans), device);
}

}  // namespace deeper
