#include "trainer/describe.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "launch/command.h"
#include "launch/run_flags.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "describe",
    .summary = "a network's layers: shapes, parameters, multiply-accumulates, activation memory",
    .operands = "",
    .details =
        "A table of a network's layers and what they cost, and after it what the GoogLeNet paper argues "
        "with: the\n"
        "price of a 5x5 convolution with and without a 1x1 before it, and of the networks it is compared "
        "with.",
    .examples =
        "deeper describe --model=googlenet\n"
        "deeper describe --model=googlenet --stem=small --image_size=28 --channels=1 --num_classes=10 --json",
};

class DescribeCommand final : public Command {
 public:
  DescribeCommand() : Command(kText) {
    config_.num_classes = 1000;
    config_.synthetic = true;  // no data to check against
  }

  std::vector<FlagGroup> Flags() override {
    return {With(ModelFlags(config_), {{"channels", &channels_, "of the images: 1 or 3"},
                                       {"aux", &config_.aux, "auxiliary classifiers of the GoogLeNets"}}),
            {"Output", {{"batch", &batch_, "images of a forward pass"}, {"json", &json_, "JSON, no table"}}}};
  }

  absl::Status Run(const Invocation&) override {
    if (absl::Status status = Validate(config_); !status.ok()) return status;
    if (batch_ < 1)
      return absl::InvalidArgumentError(absl::StrCat("--batch=", batch_, ": must be at least 1"));
    DatasetInfo images;
    images.channels = channels_;
    const absl::StatusOr<Model> model = ModelFor(config_, images, /*training=*/true);
    if (!model.ok()) return model.status();
    std::fputs((json_ ? DescribeJson(*model, batch_) : DescribeText(*model, batch_)).c_str(), stdout);
    return absl::OkStatus();
  }

 private:
  RunConfig config_;
  int channels_ = 3;
  int64_t batch_ = 1;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeDescribe() {
  return std::make_unique<DescribeCommand>();
}

}  // namespace deeper
