#include "trainer/run/config.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
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
    return Invalid("--wire=bf16: NCCL would round every partial sum; with --device=cuda it takes --comm=mpi");
  }
  if (c.wire == DType::kBf16 && c.deterministic != Determinism::kFalse) {
    return Invalid("--wire=bf16: not with --deterministic=", NameOf(c.deterministic),
                   ", as what rounding left out of the gradients so far is not saved");
  }
  if (c.shard_optimizer && c.device != DeviceType::kCpu) {
    return Invalid("--shard_optimizer: not with --device=", NameOf(c.device),
                   " so far: only on CPUs do ranks gather weights");
  }
  if (c.sync_bn && c.device != DeviceType::kCpu) {
    return Invalid("--sync_bn: not with --device=", NameOf(c.device),
                   " so far: only on CPUs does batch norm exchange its sums between ranks");
  }
  return absl::OkStatus();
}

// What an elastic run computes must follow from its flags alone.
absl::Status ValidateElasticFlags(const RunConfig& c) {
  const auto invalid = [](const auto&... words) { return Invalid("--deterministic=elastic: ", words...); };
  if (c.device != DeviceType::kCpu)
    return invalid("only with --device=cpu: NCCL has an order of sums of its own");
  if (!IsPowerOfTwo(c.elastic_slices))
    return invalid("--elastic_slices=", c.elastic_slices, " is no power of two");
  if (c.global_batch < c.elastic_slices)
    return invalid("--global_batch=", c.global_batch, " is less than --elastic_slices=", c.elastic_slices);
  if (c.micro_batch != 0)
    return invalid("a slice is one forward pass: --elastic_slices takes the place of --micro_batch");
  if (c.threads == 0)
    return invalid(
        "give --threads, the same in every run: on a CPU rounding depends on the threads of a rank");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<float>> ParseNumbers(const char* flag, const std::string& text) {
  std::vector<float> values;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    float value = 0;
    if (!absl::SimpleAtof(part, &value)) {
      return Invalid("--", flag, "=", text, ": not a comma-separated list of numbers");
    }
    values.push_back(value);
  }
  return values;
}

absl::Status ValidateFor(const RunConfig& c, int ranks, bool has_statistics) {
  if (IsElastic(c) && (!IsPowerOfTwo(ranks) || ranks > c.elastic_slices)) {
    return Invalid("--deterministic=elastic: ", ranks,
                   " ranks; it takes a power of two, at most --elastic_slices=", c.elastic_slices);
  }
  if (IsElastic(c) && has_statistics) {
    return Invalid("--deterministic=elastic: ", c.model,
                   " has batch normalisation, whose running statistics depend on the number of ranks");
  }
  if (c.sync_bn && !has_statistics) return Invalid("--sync_bn: ", c.model, " has no batch normalisation");
  if (c.global_batch < ranks && !c.sync_bn && has_statistics) {
    return Invalid("--global_batch=", c.global_batch, " is smaller than the number of ranks, ", ranks,
                   ": a rank without images has no statistics for batch normalisation; raise it, use fewer "
                   "ranks, or --sync_bn");
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
  int64_t step = 0;
  if (c.resume != "latest" && c.resume != "never" && !(absl::SimpleAtoi(c.resume, &step) && step >= 0)) {
    return Invalid("--resume=", c.resume, ": must be latest, never or the number of a step");
  }
  if (c.data.empty() == !c.synthetic)
    return Invalid("give either --data=DIR (packed shards, see `deeper pack`) or --synthetic");
  return absl::OkStatus();
}

// Tuned sizes differ by run, and so the order of sums on more than two ranks; what a GPU has recorded stays.
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
  // A run that saves has a use of its own for SIGTERM (trainer/run/stop.h).
  const bool delay_sigterm = comm.size() > 1 && config.checkpoint_dir.empty();
  ASSIGN_OR_RETURN(std::unique_ptr<Watchdog> watchdog,
                   WithExitCode(Watchdog::Start(comm, {.deadline_seconds = config.watchdog_seconds,
                                                       .delay_sigterm = delay_sigterm}),
                                ExitCode::kCommunication));
  return watchdog;
}

}  // namespace deeper
