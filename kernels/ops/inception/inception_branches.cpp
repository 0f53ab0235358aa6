// Dense branches, copied into y and out of dy explicitly. For slices of channels oneDNN has only reference
// code, and cuDNN makes hidden copies. Each branch is a chain of at most two ops. A branch runs from start to
// end while its data is in the cache.
#include <algorithm>

#include "kernels/base/status.h"
#include "kernels/ops/inception/inception.h"
#include "kernels/ops/join.h"
#include "kernels/ops/ops.h"

namespace deeper {
namespace {

class InceptionOfBranches final : public Op {
 public:
  explicit InceptionOfBranches(Device& device) : device_(device) {}
  absl::Status Prepare(const InceptionParams& params, const OpSetup& setup);
  void Bind(const OpBinding& b) override;
  void Forward() override;
  void Backward() override;

 private:
  struct Branch {
    std::vector<std::unique_ptr<Op>> ops;
    Tensor out;                 // memory of the output and of its gradient
    int64_t first_channel = 0;  // in y
    bool masks_dy = false;
  };

  absl::StatusOr<Branch> MakeBranch(const InceptionParams& params, const InceptionBranch& branch,
                                    const OpOptions& options) const;
  void AddNeeds(const Branch& branch);

  Device& device_;
  bool training_ = true;
  std::vector<Branch> branches_;
  // The workspace holds the output of a branch or its gradient, the tensor between its two ops, and their
  // scratch memory.
  size_t out_bytes_ = 0, between_bytes_ = 0, scratch_bytes_ = 0;
};

absl::Status InceptionOfBranches::Prepare(const InceptionParams& params, const OpSetup& s) {
  training_ = s.options.training;
  needs_.x = s.x;
  needs_.y = device_.FeatureMap(s.shape.y, s.x.dtype);
  needs_.backward_reads_x = training_;
  int64_t channel = 0;
  for (const InceptionBranch& description : InceptionBranches(params)) {
    ASSIGN_OR_RETURN(Branch branch, MakeBranch(params, description, s.options));
    branch.first_channel = channel;
    channel += branch.out.desc.shape.c;
    AddNeeds(branch);
    branches_.push_back(std::move(branch));
  }
  needs_.workspace_bytes = out_bytes_ + between_bytes_ + scratch_bytes_;
  return absl::OkStatus();
}

absl::StatusOr<InceptionOfBranches::Branch> InceptionOfBranches::MakeBranch(
    const InceptionParams& params, const InceptionBranch& description, const OpOptions& options) const {
  Branch branch;
  branch.out.desc = needs_.x;
  OpOptions inner = options;
  inner.fuse = inner.x_takes_pooled_gradients = false;
  const auto add = [&](const OpParams& op) -> absl::Status {
    ASSIGN_OR_RETURN(branch.ops.emplace_back(), MakeOp(op, branch.out.desc, inner, device_));
    branch.out.desc = branch.ops.back()->needs().y;
    return absl::OkStatus();
  };
  if (description.pool) RETURN_IF_ERROR(add(kInceptionPool));
  for (size_t i = 0; i < description.convolutions.size(); ++i) {
    Conv2dParams conv = description.convolutions[i].params;
    conv.dy_is_masked = i + 1 == description.convolutions.size();  // the copy out of dy masks it
    inner.name = options.name + "." + description.convolutions[i].prefix;
    inner.want_dx = options.want_dx || i > 0;
    RETURN_IF_ERROR(add(conv));
  }
  // Batch norm applies the mask itself, and the gradient of the pool's output has no ReLU.
  branch.masks_dy = !description.convolutions.empty() && !params.batch_norm && !params.dy_is_masked;
  return branch;
}

void InceptionOfBranches::AddNeeds(const Branch& branch) {
  for (const auto& op : branch.ops) {
    const OpNeeds& inner = op->needs();
    needs_.params.insert(needs_.params.end(), inner.params.begin(), inner.params.end());
    needs_.saved_bytes += Align(inner.saved_bytes);
    scratch_bytes_ = std::max(scratch_bytes_, inner.workspace_bytes);
    if (op == branch.ops.back()) continue;
    if (training_) needs_.saved_bytes += Align(inner.y.bytes());
    between_bytes_ = std::max(between_bytes_, Align(inner.y.bytes()));
  }
  out_bytes_ = std::max(out_bytes_, Align(branch.out.desc.bytes()));
  const auto& dx = branch.ops.front()->needs().dx_parts;
  needs_.dx_parts.insert(needs_.dx_parts.end(), dx.begin(), dx.end());
  needs_.backward_reads_y |= training_ && branch.masks_dy;
}

void InceptionOfBranches::Bind(const OpBinding& b) {
  Op::Bind(b);
  auto* const out = static_cast<std::byte*>(b.workspace);
  std::byte* const between = out + out_bytes_;
  auto* saved = static_cast<std::byte*>(b.saved);
  const auto take = [&saved](size_t bytes) { return std::exchange(saved, saved + Align(bytes)); };
  size_t param = 0, dx = 0;
  for (Branch& branch : branches_) {
    branch.out.data = out;
    void* x = b.x;
    for (const auto& op : branch.ops) {
      const OpNeeds& inner = op->needs();
      const bool first = op == branch.ops.front(), last = op == branch.ops.back();
      OpBinding o;
      o.x = x;
      o.y = last ? out : training_ ? take(inner.y.bytes()) : between;
      o.dy = {last ? out : between};
      if (!inner.dx_parts.empty()) o.dx = {first ? b.dx[dx++] : between};
      const size_t end = param + inner.params.size();
      o.params.assign(b.params.begin() + param, b.params.begin() + end);
      if (!b.narrow_params.empty()) {
        o.narrow_params.assign(b.narrow_params.begin() + param, b.narrow_params.begin() + end);
      }
      if (training_) o.grads.assign(b.grads.begin() + param, b.grads.begin() + end);
      param = end;
      o.saved = take(inner.saved_bytes);
      o.workspace = between + between_bytes_;
      o.step = b.step;
      op->Bind(o);
      x = o.y;
    }
  }
}

void InceptionOfBranches::Forward() {
  for (const Branch& branch : branches_) {
    for (const auto& op : branch.ops) op->Forward();
    PasteChannels(device_, branch.out, branch.first_channel, {binding_.y, needs_.y});
  }
}

void InceptionOfBranches::Backward() {
  for (const Branch& branch : branches_) {
    JoinChannels(device_, binding_.dy, branch.masks_dy ? binding_.y : nullptr, needs_.y, branch.first_channel,
                 branch.out);
    for (auto op = branch.ops.rbegin(); op != branch.ops.rend(); ++op) (*op)->Backward();
  }
}

}  // namespace

MadeOp MakeInceptionBranches(const InceptionParams& params, const OpSetup& setup) {
  auto op = std::make_unique<InceptionOfBranches>(setup.device);
  RETURN_IF_ERROR(op->Prepare(params, setup));
  return op;
}

MadeOp MakeCpu(const InceptionParams& params, const OpSetup& setup) {
  return MakeInceptionBranches(params, setup);
}

}  // namespace deeper
