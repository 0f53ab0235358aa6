#include "kernels/cuda/plans/widened.h"

#include <string>
#include <utility>

#include "kernels/base/status.h"

namespace deeper {
namespace {

size_t Aligned(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

class WidenedAlgorithm final : public Algorithm {
 public:
  WidenedAlgorithm(std::unique_ptr<Algorithm> narrow, int64_t count)
      : narrow_(std::move(narrow)), count_(count), dw_at_(Aligned(narrow_->workspace_bytes())) {
    workspace_bytes_ = WidenedWorkspace(narrow_->workspace_bytes(), count);
  }

  bool needs_check() const override { return narrow_->needs_check(); }
  absl::StatusOr<std::string> Serialize() const override { return narrow_->Serialize(); }
  absl::Status Enqueue(const PlanOperands& operands, Stream stream) override {
    PlanOperands o = operands;
    o.d = static_cast<std::byte*>(operands.workspace) + dw_at_;
    RETURN_IF_ERROR(narrow_->Enqueue(o, stream));
    Widen(static_cast<const bf16*>(o.d), static_cast<float*>(operands.d), count_,
          static_cast<cudaStream_t>(stream.native));
    const cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return absl::OkStatus();
    return Internal("widening of dw: ", cudaGetErrorString(error));
  }

 private:
  const std::unique_ptr<Algorithm> narrow_;
  const int64_t count_;
  const size_t dw_at_;  // in the workspace
};

class WidenedChoice final : public AlgorithmChoice {
 public:
  WidenedChoice(std::unique_ptr<AlgorithmChoice> narrow, int64_t count)
      : narrow_(std::move(narrow)), count_(count) {}

  absl::Status Ask() override { return narrow_->Ask(); }
  size_t size() const override { return narrow_->size(); }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return Widen(narrow_->Build(index));
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string& serialized) const override {
    return Widen(narrow_->Load(serialized));
  }

 private:
  absl::StatusOr<std::unique_ptr<Algorithm>> Widen(absl::StatusOr<std::unique_ptr<Algorithm>> narrow) const {
    RETURN_IF_ERROR(narrow.status());
    return std::make_unique<WidenedAlgorithm>(*std::move(narrow), count_);
  }

  const std::unique_ptr<AlgorithmChoice> narrow_;
  const int64_t count_;  // elements of dw
};

}  // namespace

size_t WidenedWorkspace(size_t narrow_bytes, int64_t count) {
  return Aligned(narrow_bytes) + static_cast<size_t>(count) * sizeof(bf16);
}

ConvolutionProblem NarrowProblem(const ConvolutionProblem& problem) {
  ConvolutionProblem narrow = problem;
  narrow.wide_dw = false;
  return narrow;
}

absl::StatusOr<std::unique_ptr<AlgorithmChoice>> Widened(
    const ConvolutionProblem& problem, absl::StatusOr<std::unique_ptr<AlgorithmChoice>> narrow) {
  if (problem.dtype == DType::kF32) return narrow;
  RETURN_IF_ERROR(narrow.status());
  return std::make_unique<WidenedChoice>(*std::move(narrow),
                                         problem.k * problem.kernel * problem.kernel * problem.c);
}

}  // namespace deeper
