#include "trainer/engine/finite_guard.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/small_buffer.h"
#include "kernels/ops/arrays/arrays.h"
#include "kernels/ops/arrays/verdict.h"

namespace deeper {

FiniteGuard::FiniteGuard(const Network& net, ParamStore& params, Communicator& comm, Device& device)
    : net_(net),
      params_(params),
      comm_(comm),
      device_(device),
      pieces_(net.gradient_pieces().size()),
      flags_(AllocateSmall(device, (pieces_ + 2) * sizeof(uint32_t))),
      staged_flags_(AllocateSmallStaging(device, flags_.bytes())),
      workspace_(AllocateSmall(device, FindNonFiniteWorkspaceBytes(device))),
      statistics_(AllocateSmall(device, static_cast<size_t>(params.statistics_elements()) * sizeof(float))) {}

void FiniteGuard::BeginStep() {
  device_.Copy(statistics_.data(), params_.statistic_values(), statistics_.bytes());
}

void FiniteGuard::InspectLosses(const HeadResult* losses, bool first) {
  FindLostLoss(device_, losses, static_cast<int64_t>(net_.results().size()), first, flag(pieces_ + 1));
}

void FiniteGuard::InspectPiece(size_t piece) {
  if (comm_.size() == 1) return;  // the sums are this rank's own
  const GradientPiece& part = net_.gradient_pieces()[piece];
  float* const grads = params_.grads() + part.offset;
  if (piece == 0) SpoilIf(device_, flag(pieces_ + 1), grads);
  FindNonFinite(device_, grads, static_cast<int64_t>(part.count), flag(piece), workspace_.data());
}

void FiniteGuard::InspectSums() {
  FindNonFinite(device_, params_.grads(), params_.trained_elements(), flag(pieces_), workspace_.data());
  if (comm_.size() == 1) JoinFlag(device_, flag(pieces_ + 1), flag(pieces_));
  if (params_.statistics_elements() > 0) {
    CopyIf(device_, verdict(), statistics_.as<float>(), params_.statistic_values(),
           params_.statistics_elements());
  }
  device_.Copy(staged_flags_.data(), flags_.data(), flags_.bytes());
}

std::string FiniteGuard::Culprit(std::span<const HeadResult> loss) const {
  struct Finding {
    int64_t piece;  // the first that was bad before the sum; the number of pieces if none was
    double loss;    // mean of the main head
  };
  const auto* const flags = staged_flags_.as<uint32_t>();
  const HeadResult& main = loss.front();
  const Finding mine = {std::find(flags, flags + pieces_, 1u) - flags,
                        main.loss_sum / static_cast<double>(std::max<int64_t>(1, main.rows))};
  std::vector<Finding> all(static_cast<size_t>(comm_.size()));
  comm_.AllGather(&mine, all.data(), sizeof mine, {}).Wait();
  const auto first = std::min_element(all.begin(), all.end(),
                                      [](const Finding& a, const Finding& b) { return a.piece < b.piece; });

  size_t piece = static_cast<size_t>(first->piece);
  const bool on_a_rank = piece < pieces_;
  std::optional<std::string> param;
  for (piece = on_a_rank ? piece : 0; piece < pieces_ && !param.has_value(); ++piece)
    param = FirstBadParam(piece);
  const std::string what = absl::StrCat("the gradient of ", param.value_or("no parameter"));
  const auto whose = [](const Finding& finding) { return absl::StrFormat("the loss is %g", finding.loss); };
  if (comm_.size() == 1) return absl::StrCat(what, " is not finite; ", whose(mine));
  if (!on_a_rank) return absl::StrCat(what, " overflows in the sum over ranks");
  return absl::StrCat(what, " is not finite on rank ", first - all.begin(), "; ", whose(*first), " there");
}

// Searches the sums, which are not finite where a rank's own gradient is not.
std::optional<std::string> FiniteGuard::FirstBadParam(size_t piece) const {
  const GradientPiece& part = net_.gradient_pieces()[piece];
  std::vector<float> values(part.count);
  device_.Copy(values.data(), params_.grads() + part.offset, part.count * sizeof(float));
  device_.Synchronize();
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad == values.end()) return std::nullopt;
  const auto at = static_cast<int64_t>(part.offset) + (bad - values.begin());
  const Param* const owner = params_.TrainedAt(at);
  return owner == nullptr ? std::nullopt : std::optional(owner->name);
}

}  // namespace deeper
