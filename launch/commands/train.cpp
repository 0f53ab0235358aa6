#include "trainer/run/train.h"

#include <cstdio>

#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/placement.h"
#include "launch/cli/run_flags.h"
#include "trainer/run/config.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "train",
    .summary = "trains a network; under mpirun every rank is a worker",
    .operands = "",
    .details =
        "Trains a network on packed images. Every rank holds the whole network and its share of each global\n"
        "batch; the gradients are averaged over all ranks. The order of the samples, and what is drawn for "
        "each,\n"
        "depend on --seed alone, not on the number of ranks. A run with a --checkpoint_dir goes on where the "
        "newest\n"
        "valid checkpoint in it left off, on any number of ranks.",
    .examples =
        "deeper train --data=datasets/fashion-mnist --flagfile=recipes/fashion-mnist.flags\n"
        "mpirun -n 4 --bind-to core deeper train --data=datasets/imagenet --epochs=90 --global_batch=256\n"
        "deeper train --synthetic --image_size=64 --stem=small --num_classes=10 --max_steps=20",
    .distributed = true,
};

class TrainCommand final : public Command {
 public:
  TrainCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    RunConfig& c = config_;
    return {With(ModelFlags(c), {{"aux", &c.aux, "auxiliary classifiers of the GoogLeNets"},
                                 {"aux_weight", &c.aux_weight, "of their losses, next to the main one's 1"},
                                 {"dropout", &c.dropout, "false: leaves it out everywhere"},
                                 {"init_from", &c.init_from,
                                  "weights to begin with: a checkpoint, or an HDF5 file of `export`"}}),
            Data(), Optimization(), Output(), MachineFlags()};
  }

  absl::Status Run(const Invocation& call) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> made, MakeDeviceFor(config_, call.comm));
    Device& device = *made;
    return Train(config_, call.comm, device, call.is_root() ? stdout : nullptr);
  }

 private:
  FlagGroup Data() {
    RunConfig& c = config_;
    return With(
        {"Data",
         {{"data", &c.data, "directory that `pack` wrote"},
          {"val_data", &c.val_data, "the same for evaluation; empty: --data"},
          {"train_split", &c.train_split, "split of --data to train on"},
          {"val_split", &c.val_split, "split of --val_data to evaluate on"},
          {"synthetic", &c.synthetic, "images made up on the spot, in place of --data"},
          {"synthetic_samples", &c.synthetic_samples, "how many"},
          {"augment", &c.augment, "none | flip | crop | inception"},
          {"color_jitter", &c.color_jitter,
           "brightness, contrast and saturation by factors of 1 - F to 1 + F; -1: 0.5 with "
           "--augment=inception, else 0"},
          {"random_erasing", &c.random_erasing, "probability that a rectangle of an image is erased"},
          {"mixup", &c.mixup, "alpha of the share that another image has in an image and its label; 0: none"},
          {"cutmix", &c.cutmix,
           "alpha of the share of an image that a rectangle of another one covers; 0: none; with --mixup: "
           "either"},
          {"allow_bad", &c.allow_bad,
           "samples that may turn out unreadable, each replaced by the next one; 0: the first ends the run"},
          {"order", &c.order,
           "full: another permutation of all samples every epoch | block: of blocks of consecutive samples, "
           "mixed over a window of 16384: for disks | sequential"}}},
        InputFlags(c).flags);
  }

  FlagGroup Optimization() {
    RunConfig& c = config_;
    return {"Optimization",
            {{"global_batch", &c.global_batch, "images a step, over all ranks"},
             {"micro_batch", &c.micro_batch, "images of a rank's forward pass; 0: as many as fit in memory"},
             {"epochs", &c.epochs, "0: until --max_steps"},
             {"max_steps", &c.max_steps, "0: until --epochs"},
             {"optimizer", &c.optimizer, "sgd | nesterov"},
             {"lr", &c.lr, "base learning rate, for the global batch as given"},
             {"lr_schedule", &c.lr_schedule, "constant | step | poly | cosine"},
             {"lr_step_epochs", &c.lr_step_epochs, "step: epochs between two drops"},
             {"lr_gamma", &c.lr_gamma, "step: factor of a drop"},
             {"lr_power", &c.lr_power, "poly: exponent"},
             {"lr_min", &c.lr_min, "poly, cosine: where they end"},
             {"warmup_epochs", &c.warmup_epochs, "the rate rises linearly from about 0 over these"},
             {"momentum", &c.momentum, ""},
             {"weight_decay", &c.weight_decay, "of weights; biases and batch norm are not decayed"},
             {"label_smoothing", &c.label_smoothing,
              "share of the target that is spread evenly over all classes"},
             {"on_nonfinite", &c.on_nonfinite,
              "a step whose loss or gradients are NaN or infinite never reaches the weights. stop: ends with "
              "exit code 6 | skip: goes on with the next batch"},
             {"seed", &c.seed, "of initial weights, order, augmentation and dropout"},
             {"deterministic", &c.deterministic,
              "true: the same ranks and seed give the same bits | false: on a CPU with one or two ranks they "
              "do as well; else faster | elastic: 1, 2, 4, ... ranks give the same bits"},
             {"elastic_slices", &c.elastic_slices,
              "elastic: forward passes that a global batch is cut into, a power of two, at least as many as "
              "ranks"}}};
  }

  FlagGroup Output() {
    RunConfig& c = config_;
    return {
        "Checkpoints and reports",
        {{"checkpoint_dir", &c.checkpoint_dir, "empty: nothing is saved"},
         {"checkpoint_every", &c.checkpoint_every, "steps; 0: at the end only"},
         {"checkpoint_minutes", &c.checkpoint_minutes,
          "one more when so long has passed since the last; 0: whatever the time"},
         {"keep", &c.keep, "newest checkpoints that stay; the one with the best top-1 stays besides"},
         {"keep_every", &c.keep_every,
          "checkpoints of steps that this divides stay as well; 0: none for good"},
         {"resume", &c.resume, "latest: the newest valid one, if there is one | never | STEP"},
         {"force_resume", &c.force_resume,
          "goes on though image_size, mean, std, the names of the classes or the elastic settings are "
          "not those of the checkpoint, nor, where an epoch begins, the seed and the order"},
         {"metrics_out", &c.metrics_out, "file of JSON lines, which `deeper report` shows"},
         {"tensorboard", &c.tensorboard, "directory of event files for TensorBoard, with the same curves"},
         {"trace", &c.trace, "file for a timeline of some steps on all ranks, which Perfetto opens"},
         {"trace_first", &c.trace_first, "step that it begins with"},
         {"trace_steps", &c.trace_steps, "how many"},
         {"log_every", &c.log_every, "steps"},
         {"progress", &c.progress, "auto | bar | lines: auto is a bar on a terminal, lines under mpirun"},
         {"eval_every", &c.eval_every, "steps; 0: after every epoch"}}};
  }

  FlagGroup MachineFlags() {
    return With(
        deeper::MachineFlags(config_),
        {WatchdogFlag(config_),
         {"comm", &config_.comm,
          "cuda: how gradients travel between GPUs: nccl: one rank a GPU | mpi: by way of host memory, any "
          "number of ranks a GPU | auto: nccl where it can be"},
         {"wire", &config_.wire,
          "fp32 | bf16: gradients between ranks; bf16 halves the bytes, and adds what rounding left out to "
          "the next step's"},
         {"all_reduce", &config_.all_reduce,
          "cpu: how ranks add up gradients: mpi: by MPI_Iallreduce | auto: within nodes first where ranks "
          "lie "
          "node by node, a power of two on each of several, and mpi elsewhere and with --deterministic=true"},
         {"shard_optimizer", &config_.shard_optimizer,
          "cpu: momentum is kept once over all ranks, not once a rank: each keeps a slice, updates that "
          "slice of the weights and sends it to the others; half as many bytes again a step, the same bits"},
         {"sync_bn", &config_.sync_bn,
          "cpu: batch normalisation takes its statistics over the rows of all ranks, not of each by itself; "
          "ranks wait for each other twice a layer"},
         {"bucket_mib", &config_.bucket_mib,
          "gradients that leave together while backward still runs; 0: found in the first steps, or 8 with "
          "--deterministic=true and on GPUs"}});
  }

  RunConfig config_;
};

}  // namespace

std::unique_ptr<Command> MakeTrain() {
  return std::make_unique<TrainCommand>();
}

}  // namespace deeper
