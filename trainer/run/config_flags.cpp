// The flags of `train`, one row each: name, field, help, range, unit. Other commands take some of them.
#include "trainer/engine/optimizer.h"
#include "trainer/models/model.h"
#include "trainer/run/config.h"

namespace deeper {
namespace {

constexpr double kAny = Range::kAny, kPositive = Range::kPositive;

// Parts of enums that have other values, too.
constexpr auto kEveryAugment = Choices(Augment());
constexpr Choice<Augment> kAugments[] = {kEveryAugment[0], kEveryAugment[1], kEveryAugment[2],
                                         kEveryAugment[3]};
constexpr Choice<Augment> kValPresets[] = {kEveryAugment[0], kEveryAugment[4], kEveryAugment[5]};
constexpr Choice<DType> kPrecisions[] = {{"fp32", DType::kF32}, {"bf16", DType::kBf16}};

std::vector<Flag> NetworkFlags(RunConfig& c) {
  return {{"model", OneOf(&c.model, ModelNames()), "architecture"},
          {"num_classes", &c.num_classes, "classes to tell apart",
           Range(0, 1e6, "as many as the data set or checkpoint has")},
          {"image_size", &c.image_size, "height and width of the images that the network sees",
           Range(0, 65500, "the model's own"), "pixels"},
          {"stem", &c.stem, "first layers of the network"},
          {"aux", &c.aux, "auxiliary classifiers of the GoogLeNets"},
          {"aux_weight", &c.aux_weight, "weight of their losses; the main loss has 1", Range(0, 1e3)},
          {"dropout", &c.dropout, "false: leave out all dropout layers"},
          {"init_from", &c.init_from, "weights to start from: a checkpoint, or an HDF5 file of `export`"}};
}

std::vector<Flag> DataFlags(RunConfig& c) {
  return {
      {"data", &c.data, "directory that `pack` wrote"},
      {"val_data", &c.val_data, "directory of the evaluation data; empty: --data"},
      {"train_split", &c.train_split, "split of --data to train on"},
      {"val_split", &c.val_split, "split of --val_data to evaluate on"},
      {"synthetic", &c.synthetic, "generate images, in place of --data"},
      {"synthetic_samples", &c.synthetic_samples, "number of generated images", Range(1, 1e8)},
      {"augment", OneOf(&c.augment, kAugments), "augmentation of training images"},
      {"color_jitter", &c.color_jitter,
       "F: scale brightness, contrast and saturation by random factors of 1 - F to 1 + F",
       Range(0, 1, "0.5 with --augment=inception, else 0", -1)},
      {"random_erasing", &c.random_erasing, "probability of erasing a rectangle of an image", Range(0, 1)},
      {"mixup", &c.mixup, "alpha of the Beta distribution of mixup's shares", Range(0, kMaxMixAlpha, "none")},
      {"cutmix", &c.cutmix,
       "alpha of the Beta distribution of CutMix's areas; with --mixup, either of the two at random",
       Range(0, kMaxMixAlpha, "none")},
      {"allow_bad", &c.allow_bad,
       "unreadable samples to replace by the next one before the run ends with an error", Range(0)},
      {"order", &c.order, "order of the training samples"},
      {"mean", &c.mean,
       "mean of each channel, of pixels scaled to 0..1, separated by commas; empty: the data set's"},
      {"std", &c.stddev,
       "standard deviation, likewise; the network sees (x / 255 - mean) / std; empty: the data set's"},
      {"val_preset", OneOf(&c.val_preset, kValPresets), "preparation of images for evaluation"},
      {"workers", &c.workers, "threads per rank that read, decode and augment",
       Range(0, 1024, "one more whenever the rank waits for data, up to its cores")},
      {"stage_dir", &c.stage_dir,
       "directory on a local disk, to which each machine copies the shards once while it reads the "
       "originals; empty: no copies"},
      {"direct_io", &c.direct_io,
       "read shards past the page cache (O_DIRECT): for data sets larger than memory on fast disks"}};
}

std::vector<Flag> OptimizationFlags(RunConfig& c) {
  return {
      {"global_batch", &c.global_batch, "images per step, over all ranks", Range(1, 1e6)},
      {"micro_batch", &c.micro_batch, "images per forward pass of a rank",
       Range(0, 1e6, "as many as fit in memory")},
      {"epochs", &c.epochs, "how long to train", Range(0, 1e6, "until --max_steps"), "epochs"},
      {"max_steps", &c.max_steps, "how long to train at most", Range(0, kAny, "until --epochs"), "steps"},
      {"optimizer", OneOf(&c.optimizer, OptimizerNames()), "how gradients update the weights"},
      {"lr", &c.lr, "base learning rate, for the global batch; not scaled by the number of ranks",
       Range(kPositive, 1e6)},
      {"lr_schedule", &c.lr_schedule, "how the learning rate changes"},
      {"lr_step_epochs", &c.lr_step_epochs, "step: time between two drops", Range(kPositive, 1e6), "epochs"},
      {"lr_gamma", &c.lr_gamma, "step: factor of each drop", Range(0, 1)},
      {"lr_power", &c.lr_power, "poly: exponent", Range(0, 100)},
      {"lr_min", &c.lr_min, "poly, cosine: final learning rate, at most --lr", Range(0, 1e6)},
      {"warmup_epochs", &c.warmup_epochs, "linear rise of the learning rate from 0", Range(0, 1e6), "epochs"},
      {"momentum", &c.momentum, "part of the last update that is in the next one", Range(0, 0.99999)},
      {"weight_decay", &c.weight_decay, "L2 decay of weights, not of biases and batch norm", Range(0, 1)},
      {"label_smoothing", &c.label_smoothing, "share of the target spread over all classes", Range(0, 0.999)},
      {"on_nonfinite", &c.on_nonfinite,
       "what follows a step whose loss or gradients are NaN or infinite; it never changes the weights"},
      {"seed", &c.seed, "seed of initial weights, order, augmentation and dropout"},
      {"deterministic", &c.deterministic, "which runs give the same bits"},
      {"elastic_slices", &c.elastic_slices,
       "elastic: forward passes that a global batch is cut into: a power of two, at least the number of "
       "ranks",
       Range(1)}};
}

std::vector<Flag> OutputFlags(RunConfig& c) {
  return {
      {"checkpoint_dir", &c.checkpoint_dir, "directory of checkpoints; empty: none are saved"},
      {"checkpoint_every", &c.checkpoint_every, "interval between checkpoints",
       Range(0, kAny, "at the end only"), "steps"},
      {"checkpoint_minutes", &c.checkpoint_minutes,
       "save also when this time has passed since the last checkpoint", Range(0, 1e9, "never"), "minutes"},
      {"keep", &c.keep, "newest checkpoints to keep, besides the one with the best top-1", Range(1, 1e6)},
      {"keep_every", &c.keep_every, "also keep checkpoints of steps that this divides",
       Range(0, kAny, "none"), "steps"},
      {"resume", &c.resume,
       "checkpoint to start from: latest (the newest valid one, if any), never, or STEP"},
      {"force_resume", &c.force_resume,
       "resume even if image_size, mean, std, the class names or the elastic settings differ from the "
       "checkpoint's or, where an epoch begins, the seed and the order"},
      {"metrics_out", &c.metrics_out, "file of JSON lines, for `deeper report`"},
      {"tensorboard", &c.tensorboard, "directory of TensorBoard event files, with the same curves"},
      {"trace", &c.trace, "file for a timeline of some steps of all ranks, for Perfetto"},
      {"trace_first", &c.trace_first, "first step of the timeline", Range(1)},
      {"trace_steps", &c.trace_steps, "length of the timeline", Range(1, 1000), "steps"},
      {"log_every", &c.log_every, "interval between lines of metrics", Range(1), "steps"},
      {"progress", &c.progress, "how to show progress"},
      {"eval_every", &c.eval_every, "interval between evaluations", Range(0, kAny, "after every epoch"),
       "steps"}};
}

std::vector<Flag> MachineFlags(RunConfig& c) {
  return {
      {"device", &c.device, "where to compute"},
      {"precision", OneOf(&c.precision, kPrecisions),
       "of activations and of the weights they meet; sums are fp32"},
      {"fusion", &c.fusion, "cuda: fused kernels"},
      {"cuda_graph", &c.cuda_graph, "cuda: record a step once and replay it; false: launch by launch"},
      {"plan_cache", &c.plan_cache,
       "cuda: file of tuned library calls; default: ~/.cache/deeper/plans.json; empty: tune in every run"},
      {"threads", &c.threads, "cpu: threads per rank, for computing",
       Range(0, 1024, "a fair share of the cores that the rank may use")},
      {"watchdog_seconds", &c.watchdog_seconds,
       "abort with exit code 5, and name the rank, if a rank makes no progress or is silent for so long",
       Range(0, 1e9, "no watchdog"), "seconds"},
      {"comm", &c.comm, "cuda: transport of gradients between GPUs"},
      {"wire", OneOf(&c.wire, kPrecisions),
       "precision of gradients between ranks; bf16 halves the bytes, and adds what rounding left out to the "
       "next step's"},
      {"all_reduce", &c.all_reduce, "cpu: how ranks add up gradients"},
      {"shard_optimizer", &c.shard_optimizer,
       "cpu: each rank keeps a slice of the momentum, updates that slice of the weights and sends it to the "
       "others: less memory per rank, half as many bytes again per step, the same bits"},
      {"sync_bn", &c.sync_bn,
       "cpu: batch normalisation takes its statistics over the rows of all ranks, not of each rank alone; "
       "ranks wait for each other twice per layer"},
      {"bucket_mib", &c.bucket_mib, "gradients that leave together while backward still runs",
       Range(0, 1e6, "found in the first steps, or 8 with --deterministic=true and on GPUs"), "MiB"}};
}

}  // namespace

std::vector<FlagGroup> ConfigFlags(RunConfig& c) {
  return {{"Network", NetworkFlags(c)},
          {"Data", DataFlags(c)},
          {"Optimization", OptimizationFlags(c)},
          {"Checkpoints and reports", OutputFlags(c)},
          {"Machine", MachineFlags(c)}};
}

}  // namespace deeper
