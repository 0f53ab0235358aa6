#include <sys/stat.h>

#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/checkpoint_tools.h"
#include "trainer/monitor/text_layout.h"

namespace deeper {
namespace {

// ---- list

constexpr CommandText kListText = {
    .name = "checkpoint list",
    .summary = "lists the checkpoints of a directory",
    .operands = "DIR",
    .details =
        R"(Prints one line per checkpoint: its step, the number of its shards, its size, its top-1 accuracy if it
was evaluated, when it was saved, and its state. The state is sound if every checksum is right, and otherwise
the first problem. Reads all files.)",
    .examples = "deeper checkpoint list runs/fashion-mnist",
};

std::string Megabytes(uint64_t bytes) {
  return absl::StrFormat("%.1f", static_cast<double>(bytes) / 1e6);
}

// Local time of the last change to the directory: of its manifest, unless files were copied.
std::string TimeOf(const std::string& directory) {
  struct stat status {};
  if (stat(directory.c_str(), &status) != 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M", absl::FromTimeT(status.st_mtime), absl::LocalTimeZone());
}

class ListCommand final : public Command {
 public:
  ListCommand() : Command(kListText) {}

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 1) return InvalidArgument("needs one directory");
    ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                     WithExitCode(ListCheckpoints(call.operands[0]), ExitCode::kCheckpoint));
    std::vector<std::vector<std::string>> rows = {{"step", "shards", "MB", "top-1", "saved", "state"}};
    for (const CheckpointInfo& info : checkpoints) {
      rows.push_back({absl::StrCat(info.step), absl::StrCat(info.shards), Megabytes(info.bytes),
                      info.top1.has_value() ? absl::StrFormat("%.4f", *info.top1) : "-", TimeOf(info.path),
                      info.problems.empty() ? "sound" : info.problems[0]});
    }
    std::fputs(FormatTable("rrrrll", rows).c_str(), stdout);
    return absl::OkStatus();
  }
};

// ---- diff

constexpr CommandText kDiffText = {
    .name = "checkpoint diff",
    .summary = "compares two checkpoints, tensor by tensor",
    .operands = "CHECKPOINT CHECKPOINT",
    .details =
        R"(Names the tensors whose bits differ, with the number of values and the largest absolute difference.
The numbers of shards may differ. Each operand is a step directory, or a directory of checkpoints, which
stands for its newest valid one. Exit code 4: the two differ.)",
    .examples = "deeper checkpoint diff runs/a/step-000000100 runs/b/step-000000100",
};

class DiffCommand final : public Command {
 public:
  DiffCommand() : Command(kDiffText) {}

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 2) return InvalidArgument("needs two checkpoints");
    ASSIGN_OR_RETURN(
        const CheckpointDelta delta,
        WithExitCode(CompareCheckpoints(call.operands[0], call.operands[1]), ExitCode::kCheckpoint));
    for (const std::string& sentence : delta.unlike) absl::PrintF("%s\n", sentence);
    for (const TensorDelta& tensor : delta.different) {
      absl::PrintF("%s: %d values differ, by at most %g\n", tensor.name, tensor.elements, tensor.max_abs);
    }
    absl::PrintF("%d of %d tensors differ\n", delta.different.size(), delta.tensors);
    std::fflush(stdout);
    if (delta.same()) return absl::OkStatus();
    return WithExitCode(FailedPrecondition("the checkpoints differ"), ExitCode::kCheckpoint);
  }
};

// ---- reshard

constexpr CommandText kReshardText = {
    .name = "checkpoint reshard",
    .summary = "copies a checkpoint into another number of files",
    .operands = "CHECKPOINT",
    .details =
        R"(Writes the same state, bit for bit, as the same step of another directory, in --shards files, for
example to archive it. Training does not need this command: any number of ranks resumes from any number of
shards.)",
    .examples = "deeper checkpoint reshard --shards=1 --output=archive runs/fashion-mnist",
};

class ReshardCommand final : public Command {
 public:
  ReshardCommand() : Command(kReshardText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Files",
             {{"shards", &shards_, "number of files to write", Range(1, 99999)},
              {"output", &output_, "directory of checkpoints to write to"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 1 || output_.empty())
      return InvalidArgument("needs one checkpoint and --output=DIR");
    return WithExitCode(Reshard(call.operands[0]), ExitCode::kCheckpoint);
  }

 private:
  absl::Status Reshard(const std::string& operand) const {
    ASSIGN_OR_RETURN(const CheckpointChoice from, FindCheckpoint(operand));
    ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadCheckpointManifest(from.path));
    RETURN_IF_ERROR(ReshardCheckpoint(from.path, shards_, output_));
    absl::PrintF("wrote %s (shards: %d) from %s (shards: %d)\n", StepDirectory(output_, manifest.step),
                 shards_, from.path, manifest.shards.size());
    return absl::OkStatus();
  }

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
