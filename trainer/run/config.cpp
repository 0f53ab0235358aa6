#include "trainer/run/config.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/node_places.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

absl::Status Invalid(const auto&... words) {
  return InvalidArgument(words...);
}

bool IsPowerOfTwo(int value) {
  return value > 0 && (value & (value - 1)) == 0;
}

// Flags that exclude each other.
absl::Status ValidateTogether(const RunConfig& c) {
  if (c.comm == Transport::kNccl && c.device != DeviceType::kCuda)
    return Invalid("--comm=nccl: NCCL needs --device=cuda; use --comm=auto");
  if (c.wire == DType::kBf16 && c.device == DeviceType::kCuda && c.comm != Transport::kMpi) {
    return Invalid("--wire=bf16: NCCL would round every partial sum; with --device=cuda, use --comm=mpi");
  }
  if (c.wire == DType::kBf16 && c.deterministic != Determinism::kFalse) {
    return Invalid("--wire=bf16: not supported with --deterministic=", NameOf(c.deterministic),
                   ": checkpoints do not contain the accumulated rounding errors of the gradients");
  }
  if (c.flip == Flip::kAlternate && !MirrorsHalf(c.augment))
    return Invalid("--flip=alternate: has no effect with --augment=", NameOf(c.augment));
  if (c.stop_at > 0 && c.checkpoint_dir.empty())
    return Invalid("--stop_at=", c.stop_at,
                   ": the next part of the run needs a checkpoint; pass --checkpoint_dir");
  if (!c.dropout && c.dropout_rate >= 0)
    return Invalid("--dropout_rate=", c.dropout_rate, ": has no effect with --dropout=false");
  return absl::OkStatus();
}

// The results of an elastic run must depend on its flags only.
absl::Status ValidateElasticFlags(const RunConfig& c) {
  const auto invalid = [](const auto&... words) { return Invalid("--deterministic=elastic: ", words...); };
  if (!IsPowerOfTwo(c.elastic_slices))
    return invalid("--elastic_slices=", c.elastic_slices, " is not a power of two");
  if (c.global_batch < c.elastic_slices)
    return invalid("--global_batch=", c.global_batch, " is less than --elastic_slices=", c.elastic_slices);
  if (c.micro_batch != 0)
    return invalid("a slice is one forward pass, so --elastic_slices replaces --micro_batch");
  if (c.device == DeviceType::kCpu && c.threads == 0)
    return invalid(
        "set --threads to the same number in every run: on a CPU, rounding depends on the threads per rank");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<float>> ParseNumbers(const char* flag, const std::string& text) {
  std::vector<float> values;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    float value = 0;
    if (!absl::SimpleAtof(part, &value) || !std::isfinite(value)) {
      return Invalid("--", flag, "=", text, ": not a comma-separated list of finite numbers");
    }
    values.push_back(value);
  }
  return values;
}

absl::StatusOr<std::vector<LrScale>> LrScalesOf(const RunConfig& config) {
  std::vector<LrScale> rows;
  for (const absl::string_view part : absl::StrSplit(config.lr_scale, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> row = absl::StrSplit(part, absl::MaxSplits(':', 1));
    float factor = 0;
    if (!absl::SimpleAtof(row.second, &factor) || !(factor >= 0 && factor <= 1000)) {
      return Invalid("--lr_scale=", config.lr_scale,
                     ": must be a comma-separated list of PATTERN:FACTOR, with factors from 0 to 1000");
    }
    rows.push_back({row.first, factor});
  }
  for (const absl::string_view pattern : absl::StrSplit(config.freeze, ',', absl::SkipEmpty()))
    rows.push_back({std::string(pattern), 0});
  return rows;
}

absl::Status ValidateFor(const RunConfig& c, int ranks, bool has_statistics) {
  if (IsElastic(c) && (!IsPowerOfTwo(ranks) || ranks > c.elastic_slices)) {
    return Invalid(
        "--deterministic=elastic: ", ranks,
        " ranks; the number of ranks must be a power of two, at most --elastic_slices=", c.elastic_slices);
  }
  if (IsElastic(c) && has_statistics) {
    return Invalid("--deterministic=elastic: ", c.model,
                   " has batch normalisation, whose running statistics depend on the number of ranks");
  }
  if (c.sync_bn && !has_statistics) return Invalid("--sync_bn: ", c.model, " has no batch normalisation");
  if (c.global_batch < ranks && !c.sync_bn && has_statistics) {
    return Invalid("--global_batch=", c.global_batch, " is smaller than the number of ranks, ", ranks,
                   ": a rank without images has no statistics for batch normalisation; raise --global_batch, "
                   "use fewer ranks, or set --sync_bn");
  }
  return absl::OkStatus();
}

absl::Status Validate(const RunConfig& c) {
  RunConfig copy = c;
  for (const FlagGroup& group : ConfigFlags(copy)) {
    for (const Flag& flag : group.flags) RETURN_IF_ERROR(flag.Set(flag.ValueText()));
  }
  if (c.lr_min > c.lr) return Invalid("--lr_min=", c.lr_min, ": must be at most --lr=", c.lr);
  RETURN_IF_ERROR(ValidateTogether(c));
  if (IsElastic(c)) {
    RETURN_IF_ERROR(ValidateElasticFlags(c));
  }
  for (const auto& [flag, text] : {std::pair{"mean", c.mean}, {"std", c.stddev}}) {
    RETURN_IF_ERROR(ParseNumbers(flag, text).status());
  }
  RETURN_IF_ERROR(LrScalesOf(c).status());
  int64_t step = 0;
  if (c.resume != "latest" && c.resume != "never" && !(absl::SimpleAtoi(c.resume, &step) && step >= 0)) {
    return Invalid("--resume=", c.resume, ": must be latest, never or the number of a step");
  }
  if (c.data.empty() == !c.synthetic)
    return Invalid("pass either --data=DIR (packed shards, see `deeper pack`) or --synthetic");
  return absl::OkStatus();
}

void ChoosePrecision(const Device& device, Communicator& comm, RunConfig& config) {
  if (config.precision != kAutoPrecision) return;
  int64_t native = device.bf16_support() == Bf16Support::kNative ? 1 : 0;
  comm.AllReduce(&native, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  config.precision = native == 1 ? DType::kBf16 : DType::kF32;
}

std::string PrecisionWarning(const Device& device, const RunConfig& config) {
  if (config.precision != DType::kBf16 || device.bf16_support() != Bf16Support::kEmulated) return "";
  return absl::StrCat("--precision=bf16: ", device.Describe(),
                      ", has no bf16 instructions and emulates them, which takes longer than fp32; use "
                      "--precision=fp32, or auto");
}

// Tuned sizes differ between runs, and with them the order of sums on more than two ranks. They also cannot
// change after a GPU has recorded the step.
size_t BucketBytesOf(const RunConfig& config) {
  constexpr double kMiB = 1 << 20;
  if (config.bucket_mib > 0) return std::max<size_t>(1, static_cast<size_t>(config.bucket_mib * kMiB));
  const bool fixed = config.deterministic == Determinism::kTrue || config.device == DeviceType::kCuda;
  return fixed ? static_cast<size_t>(8 * kMiB) : kTunedBuckets;
}

// With --deterministic=true, the bits must not depend on which nodes the ranks are on.
GradientSum GradientSumOf(const RunConfig& config, Communicator& comm) {
  if (IsElastic(config)) return GradientSum::kTree;
  if (config.wire == DType::kBf16) return GradientSum::kBf16;
  const bool free = config.all_reduce == AllReduceKind::kAuto &&
                    config.deterministic == Determinism::kFalse && config.device == DeviceType::kCpu;
  return free && TreeKeepsToNodes(GatherNodePlaces(comm)) ? GradientSum::kTree : GradientSum::kAnyOrder;
}

absl::StatusOr<std::unique_ptr<Watchdog>> StartWatchdog(const RunConfig& config, Communicator& comm) {
  if (config.watchdog_seconds <= 0) return nullptr;
  // A run that saves checkpoints handles SIGTERM itself (trainer/run/stop.h).
  const bool delay_sigterm = comm.size() > 1 && config.checkpoint_dir.empty();
  ASSIGN_OR_RETURN(std::unique_ptr<Watchdog> watchdog,
                   WithExitCode(Watchdog::Start(comm, {.deadline_seconds = config.watchdog_seconds,
                                                       .delay_sigterm = delay_sigterm}),
                                ExitCode::kCommunication));
  return watchdog;
}

}  // namespace deeper
