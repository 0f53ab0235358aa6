#include <cstdio>
#include <string>
#include <vector>

#include "data/io/atomic_file.h"
#include "data/io/file.h"
#include "data/shards/manifest.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "launch/commands/classifier.h"
#include "trainer/interchange/import_weights.h"
#include "trainer/run/inputs.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "import",
    .summary = "converts weights of other programs",
    .operands = "",
    .details =
        R"(Reads a file of torch.save(model.state_dict()), a safetensors, .caffemodel or HDF5 file, and writes a
weights file that names its network and its pre-processing. The content of the file decides its format. Nothing in a
file of torch.save is executed. Other commands read the same files with --init_from; this one adds what the
file does not say: class names, and the normalisation of the images.)",
    .examples = "deeper import --input=googlenet.pth --classes=imagenet.txt --output=googlenet.h5",
};

class ImportCommand final : public Command {
 public:
  ImportCommand() : Command(kText) {
    config_.synthetic = true;  // so that --data may be empty
  }

  std::vector<FlagGroup> Flags() override {
    return {{"Files",
             {{"input", &input_, "weights to read"},
              {"classes", &classes_,
               "text file with the name of a class on each line, in the order of the logits"},
              {"output", &output_, "HDF5 file to write"}}},
            Pick(config_, "Network (empty or 0: as the file says)",
                 {"model", "num_classes", "image_size", "stem", "mean", "std", "val_preset"})};
  }

  absl::Status Run(const Invocation&) override {
    if (input_.empty() || output_.empty()) return InvalidArgument("needs --input=FILE and --output=FILE");
    RETURN_IF_ERROR(WithExitCode(CheckWritable(output_), ExitCode::kCheckpoint));
    ASSIGN_OR_RETURN(Weights weights, WithExitCode(ImportWeights(input_), ExitCode::kCheckpoint));
    Warn(weights.warnings);
    if (!classes_.empty()) {
      ASSIGN_OR_RETURN(const std::vector<std::string> names,
                       WithExitCode(ReadLines(classes_), ExitCode::kData));
      RETURN_IF_ERROR(WithExitCode(CheckClassNames(names), ExitCode::kData));
      weights.config["classes"] = names;
    }
    RETURN_IF_ERROR(Describe(weights));
    RETURN_IF_ERROR(WithExitCode(WriteWeights(weights, output_), ExitCode::kCheckpoint));
    std::printf("%s: %zu tensors of %s, %ld classes, mean %s, std %s, val_preset %s\n", output_.c_str(),
                weights.tensors.size(), config_.model.c_str(), static_cast<long>(config_.num_classes),
                weights.config["mean"].dump().c_str(), weights.config["std"].dump().c_str(),
                NameOf(config_.val_preset));
    return absl::OkStatus();
  }

 private:
  // Completes weights.config, and checks that the network has these tensors.
  absl::Status Describe(Weights& weights) {
    const absl::StatusOr<DatasetInfo> trained_on = ReadNetworkJson(weights.config, config_);
    if (!trained_on.ok()) {
      return WithExitCode(FailedPrecondition(input_, ": ", trained_on.status().message()),
                          ExitCode::kCheckpoint);
    }
    RETURN_IF_ERROR(Validate(config_));
    const auto names = std::ssize(trained_on->classes);
    if (!classes_.empty() && names != config_.num_classes) {
      return WithExitCode(InvalidArgument("--classes=", classes_, " has ", names, " lines, and the network ",
                                          config_.num_classes, " classes"),
                          ExitCode::kData);
    }
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, *trained_on, /*training=*/true));
    ASSIGN_OR_RETURN(const PixelStats stats, PixelStatsFor(config_, *trained_on));
    weights.config.update(NetworkJson(config_, model, *trained_on, stats));
    return WithExitCode(CheckFits(weights, model), ExitCode::kCheckpoint);
  }

  RunConfig config_ = OpenNetworkConfig();
  std::string input_, classes_, output_;
};

}  // namespace

std::unique_ptr<Command> MakeImport() {
  return std::make_unique<ImportCommand>();
}

}  // namespace deeper
