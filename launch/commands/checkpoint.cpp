#include <cstdio>

#include "absl/strings/str_format.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/checkpoint_tools.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {
namespace {

// ---- list

constexpr CommandText kListText = {
    .name = "checkpoint list",
    .summary = "shows the checkpoints of a directory",
    .operands = "DIR",
    .details =
        R"(One line per checkpoint: its step, the number of ranks that saved it, its size, its top-1 if it was
evaluated, and whether every checksum holds. Reads all files.)",
    .examples = "deeper checkpoint list runs/fashion-mnist",
};

class ListCommand final : public Command {
 public:
  ListCommand() : Command(kListText) {}

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 1) return InvalidArgument("needs one directory");
    ASSIGN_OR_RETURN(const std::vector<CheckpointInfo> checkpoints,
                     WithExitCode(ListCheckpoints(call.operands[0]), ExitCode::kCheckpoint));
    absl::PrintF("%12s %6s %10s %8s  %s\n", "step", "ranks", "MB", "top-1", "");
    for (const CheckpointInfo& info : checkpoints) {
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
        R"(Names the tensors whose bits differ, with the number of values and the largest absolute difference.
The numbers of shards may differ. Each checkpoint is a step directory, or a directory of them, whose
newest valid one is taken. Exit code 4: the two differ.)",
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
      absl::PrintF("%s: %d values differ, by %g at the most\n", tensor.name, tensor.elements, tensor.max_abs);
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
    .summary = "writes a checkpoint anew in another number of files",
    .operands = "CHECKPOINT",
    .details =
        R"(Writes the same state, bit for bit, as the same step of another directory, in --shards files: to
move checkpoints. Training does not need it: any number of ranks resumes from any number of shards.)",
    .examples = "deeper checkpoint reshard --shards=1 --output=archive runs/fashion-mnist",
};

class ReshardCommand final : public Command {
 public:
  ReshardCommand() : Command(kReshardText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Files",
             {{"shards", &shards_, "number of files for the state", Range(1, 99999)},
              {"output", &output_, "directory of checkpoints to write to"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (call.operands.size() != 1 || output_.empty())
      return InvalidArgument("needs one checkpoint and --output=DIR");
    return WithExitCode(ReshardCheckpoint(call.operands[0], shards_, output_), ExitCode::kCheckpoint);
  }

 private:
  int64_t shards_ = 1;
  std::string output_;
};

// ---- export

constexpr CommandText kExportText = {
    .name = "export",
    .summary = "writes a checkpoint's weights for other programs",
    .operands = "",
    .details =
        R"(Writes the weights of a checkpoint, without the state of training. hdf5: one float32 data set a
parameter, under its name as in torchvision (convolutions O,I,H,W), and what the network is as attributes
of the file.)",
    .examples = "deeper export --checkpoint=runs/fashion-mnist --format=hdf5 --output=googlenet.h5",
};

class ExportCommand final : public Command {
 public:
  ExportCommand() : Command(kExportText) {}

  std::vector<FlagGroup> Flags() override {
    return {{"Files",
             {CheckpointFlag(checkpoint_),
              {"format", OneOf(&format_, {"hdf5"}), "format of the file"},
              {"output", &output_, "file to write"}}}};
  }

  absl::Status Run(const Invocation&) override {
    if (checkpoint_.empty() || output_.empty())
      return InvalidArgument("needs --checkpoint=DIR and --output=FILE");
    ASSIGN_OR_RETURN(const Weights weights, WithExitCode(ReadWeights(checkpoint_), ExitCode::kCheckpoint));
    for (const std::string& warning : weights.warnings)
      std::fprintf(stderr, "deeper: warning: %s\n", warning.c_str());
    RETURN_IF_ERROR(WithExitCode(WriteWeights(weights, output_), ExitCode::kCheckpoint));
    std::printf("%s: %zu tensors, %zu values\n", output_.c_str(), weights.tensors.size(),
                weights.values.size());
    return absl::OkStatus();
  }

 private:
  std::string checkpoint_, format_ = "hdf5", output_;
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
std::unique_ptr<Command> MakeExport() {
  return std::make_unique<ExportCommand>();
}

}  // namespace deeper
