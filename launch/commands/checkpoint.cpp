#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/exit_code.h"
#include "launch/cli/command.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/checkpoint_tools.h"

namespace deeper {
namespace {

absl::Status CheckpointError(const absl::Status& status) {
  return WithExitCode(status, ExitCode::kCheckpoint);
}

// ---- list

constexpr CommandText kListText = {
    .name = "checkpoint list",
    .summary = "shows the checkpoints of a directory",
    .operands = "DIR",
    .details =
        "A line for each: its step, the ranks that saved it, its size, its top-1 if it was evaluated, and "
        "whether\n"
        "every checksum holds: all of it is read.",
    .examples = "deeper checkpoint list runs/fashion-mnist",
};

class ListCommand final : public Command {
 public:
  ListCommand() : Command(kListText) {}

  std::vector<FlagGroup> Flags() override { return {}; }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 1) return absl::InvalidArgumentError("needs one directory");
    const absl::StatusOr<std::vector<CheckpointInfo>> checkpoints = ListCheckpoints(call.operands[0]);
    if (!checkpoints.ok()) return CheckpointError(checkpoints.status());
    absl::PrintF("%12s %6s %10s %8s  %s\n", "step", "ranks", "MB", "top-1", "");
    for (const CheckpointInfo& info : *checkpoints) {
      const std::string top1 = info.top1.has_value() ? absl::StrFormat("%.4f", *info.top1) : "-";
      absl::PrintF("%12d %6d %10.1f %8s  %s\n", info.step, info.shards, static_cast<double>(info.bytes) / 1e6,
                   top1, info.problems.empty() ? "sound" : info.problems[0]);
    }
    return absl::OkStatus();
  }
};

// ---- diff

constexpr CommandText kDiffText = {
    .name = "checkpoint diff",
    .summary = "compares two checkpoints, tensor by tensor",
    .operands = "CHECKPOINT CHECKPOINT",
    .details =
        "Names the tensors whose bits differ, in how many values, and the largest absolute difference. How "
        "many\n"
        "shards either has makes no difference. Each is a step directory, or a directory of them, whose "
        "newest valid\n"
        "one is taken. Ends with 4 if the two differ.",
    .examples = "deeper checkpoint diff runs/a/step-000000100 runs/b/step-000000100",
};

class DiffCommand final : public Command {
 public:
  DiffCommand() : Command(kDiffText) {}

  std::vector<FlagGroup> Flags() override { return {}; }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 2) return absl::InvalidArgumentError("needs two checkpoints");
    const absl::StatusOr<CheckpointDelta> delta = CompareCheckpoints(call.operands[0], call.operands[1]);
    if (!delta.ok()) return CheckpointError(delta.status());
    for (const std::string& sentence : delta->unlike) absl::PrintF("%s\n", sentence);
    for (const TensorDelta& tensor : delta->different) {
      absl::PrintF("%s: %d values differ, by %g at the most\n", tensor.name, tensor.elements, tensor.max_abs);
    }
    absl::PrintF("%d of %d tensors differ\n", delta->different.size(), delta->tensors);
    std::fflush(stdout);
    if (delta->same()) return absl::OkStatus();
    return CheckpointError(absl::FailedPreconditionError("the checkpoints differ"));
  }
};

// ---- reshard

constexpr CommandText kReshardText = {
    .name = "checkpoint reshard",
    .summary = "writes a checkpoint anew in another number of files",
    .operands = "CHECKPOINT",
    .details =
        "Training needs no such thing, since any number of ranks goes on from any number of shards: it is "
        "for "
        "those\n"
        "who move checkpoints about. The state, bit for bit, goes to the same step of another directory.",
    .examples = "deeper checkpoint reshard --shards=1 --output=archive runs/fashion-mnist",
};

class ReshardCommand final : public Command {
 public:
  ReshardCommand() : Command(kReshardText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Files",
             {{"shards", &shards_, "how many files to cut the state into"},
              {"output", &output_, "directory of checkpoints to write to"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 1 || output_.empty())
      return absl::InvalidArgumentError("needs one checkpoint and --output=DIR");
    if (shards_ < 1 || shards_ > 99999)
      return absl::InvalidArgumentError(absl::StrCat("--shards=", shards_, ": must be between 1 and 99999"));
    return CheckpointError(ReshardCheckpoint(call.operands[0], shards_, output_));
  }

 private:
  int64_t shards_ = 1;
  std::string output_;
};

}  // namespace

std::unique_ptr<Command> MakeCheckpointList() {
  return std::make_unique<ListCommand>();
}
std::unique_ptr<Command> MakeCheckpointDiff() {
  return std::make_unique<DiffCommand>();
}
std::unique_ptr<Command> MakeCheckpointReshard() {
  return std::make_unique<ReshardCommand>();
}

}  // namespace deeper
