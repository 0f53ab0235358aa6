#include <cstdio>
#include <string>

#include "data/io/atomic_file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "launch/commands/classifier.h"
#include "trainer/checkpoint/weights_file.h"
#include "trainer/interchange/import_weights.h"
#include "trainer/interchange/onnx.h"
#include "trainer/interchange/safetensors.h"
#include "trainer/run/inputs.h"

namespace deeper {
namespace {

enum class Format { kHdf5, kSafetensors, kOnnx };
constexpr auto Choices(Format) {
  return std::to_array<Choice<Format>>(
      {{"hdf5", Format::kHdf5, "one data set per tensor"},
       {"safetensors", Format::kSafetensors, "for PyTorch, without the auxiliary heads unless --aux"},
       {"onnx", Format::kOnnx, "the network itself, for ONNX Runtime and others: opset 13, any batch size"}});
}

constexpr CommandText kText = {
    .name = "export",
    .summary = "exports the weights of a checkpoint for other programs",
    .operands = "",
    .details =
        R"(Writes the weights of a checkpoint, without the optimizer's state. hdf5 and safetensors files have one
float32 tensor per parameter, under its name in torchvision (convolutions O,I,H,W), and the description of
the network as attributes or metadata. An onnx file has the network for inference: input "images", output
"logits". Its metadata name the classes, mean, std and the other settings of the pre-processing.)",
    .examples = R"(deeper export --checkpoint=runs/fashion-mnist --format=hdf5 --output=googlenet.h5
deeper export --checkpoint=runs/photos --format=onnx --input=uint8 --output=photos.onnx)",
};

class ExportCommand final : public Command {
 public:
  ExportCommand() : Command(kText) {
    config_.synthetic = true;  // so that --data may be empty
  }

  std::vector<FlagGroup> Flags() override {
    return {With({"Files",
                  {CheckpointFlag(checkpoint_),
                   {"format", &format_, "format of the file"},
                   {"output", &output_, "file to write"},
                   {"aux", &aux_, "a safetensors file has the auxiliary heads too"},
                   {"input", &input_, "input of an onnx model"}}},
                 Pick(config_, "", {"use_ema"}).flags),
            Pick(config_, "Network of an onnx model (empty or 0: as in the checkpoint)",
                 {"model", "num_classes", "image_size", "stem", "mean", "std", "val_preset"})};
  }

  absl::Status Run(const Invocation&) override {
    if (checkpoint_.empty() || output_.empty())
      return InvalidArgument("needs --checkpoint=DIR and --output=FILE");
    if (format_ != Format::kOnnx && DescribesNetwork()) {
      return InvalidArgument(
          "--model, --num_classes, --image_size, --stem, --mean, --std and --val_preset need --format=onnx");
    }
    for (const auto& [ending, format] :
         {std::pair(".h5", Format::kHdf5), std::pair(".hdf5", Format::kHdf5),
          std::pair(".safetensors", Format::kSafetensors), std::pair(".onnx", Format::kOnnx)}) {
      if (output_.ends_with(ending) && format != format_)
        return InvalidArgument("--output=", output_, " ends as --format=", NameOf(format),
                               ", and --format is ", NameOf(format_));
    }
    if (format_ != Format::kOnnx && input_ != OnnxInput::kFloat)
      return InvalidArgument("--input needs --format=onnx");
    if (format_ != Format::kSafetensors && aux_) return InvalidArgument("--aux needs --format=safetensors");
    RETURN_IF_ERROR(WithExitCode(CheckWritable(output_), ExitCode::kCheckpoint));
    ASSIGN_OR_RETURN(Weights weights,
                     WithExitCode(ImportWeights(checkpoint_, AverageOf(config_)), ExitCode::kCheckpoint));
    Warn(weights.warnings);
    if (format_ == Format::kSafetensors && !aux_)
      std::erase_if(weights.tensors,
                    [](const TensorEntry& tensor) { return tensor.name.starts_with("aux"); });
    RETURN_IF_ERROR(Write(weights));
    size_t values = 0;
    for (const TensorEntry& tensor : weights.tensors) values += static_cast<size_t>(tensor.count);
    std::printf("%s: %zu tensors, %zu values\n", output_.c_str(), weights.tensors.size(), values);
    return absl::OkStatus();
  }

 private:
  bool DescribesNetwork() const {
    return !config_.model.empty() || config_.num_classes != 0 || config_.image_size != 0 ||
           config_.stem != kNotGiven<Stem> || !config_.mean.empty() || !config_.stddev.empty() ||
           config_.val_preset != kNotGiven<Augment>;
  }

  absl::Status Write(Weights& weights) {
    if (format_ == Format::kOnnx) return WriteNetwork(weights);
    return WithExitCode(
        format_ == Format::kHdf5 ? WriteWeights(weights, output_) : WriteSafetensors(weights, output_),
        ExitCode::kCheckpoint);
  }

  absl::Status WriteNetwork(Weights& weights) {
    const absl::StatusOr<DatasetInfo> trained_on = ReadNetworkJson(weights.config, config_);
    if (!trained_on.ok()) {
      return WithExitCode(FailedPrecondition(weights.path, ": ", trained_on.status().message()),
                          ExitCode::kCheckpoint);
    }
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, *trained_on, /*training=*/false));
    ASSIGN_OR_RETURN(PixelStats stats, PixelStatsFor(config_, *trained_on));
    weights.config.update(NetworkJson(config_, model, *trained_on, stats));
    const OnnxOptions options = {input_, std::move(stats), config_.val_preset == Augment::kBvlc};
    return WithExitCode(WriteOnnx(model, options, weights, output_), ExitCode::kCheckpoint);
  }

  RunConfig config_ = OpenNetworkConfig();
  std::string checkpoint_, output_;
  Format format_ = Format::kHdf5;
  bool aux_ = false;
  OnnxInput input_ = OnnxInput::kFloat;
};

}  // namespace

std::unique_ptr<Command> MakeExport() {
  return std::make_unique<ExportCommand>();
}

}  // namespace deeper
