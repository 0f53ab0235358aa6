#include <cstdio>

#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "trainer/run/config.h"
#include "trainer/run/train.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "train",
    .summary = "trains a network, under mpirun on all ranks of the job",
    .operands = "",
    .details =
        R"(Trains a network on packed images. Every rank holds the whole network and processes its share of each
global batch; the gradients are averaged over all ranks. The order and the augmentation of the samples depend
only on --seed, not on the number of ranks. A run with --checkpoint_dir resumes from the newest valid
checkpoint in it, on any number of ranks.)",
    .examples = R"(deeper train --data=datasets/fashion-mnist --flagfile=recipes/fashion-mnist.flags
mpirun -n 4 --bind-to core deeper train --data=datasets/imagenet --epochs=90 --global_batch=256
deeper train --synthetic --image_size=64 --stem=small --num_classes=10 --max_steps=20)",
    .distributed = true,
};

class TrainCommand final : public Command {
 public:
  TrainCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override { return ConfigFlags(config_); }

  absl::Status Run(const Invocation& call) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeDeviceFor(config_, call.comm));
    return Train(config_, call.comm, *device, call.is_root() ? stdout : nullptr);
  }

 private:
  RunConfig config_;
};

}  // namespace

std::unique_ptr<Command> MakeTrain() {
  return std::make_unique<TrainCommand>();
}

}  // namespace deeper
