#include <cstdio>

#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_flags.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
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
  ExportCommand() : Command(kText) {}

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

std::unique_ptr<Command> MakeExport() {
  return std::make_unique<ExportCommand>();
}

}  // namespace deeper
