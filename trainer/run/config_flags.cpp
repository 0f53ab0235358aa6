// The flags of `train`, one row each: name, field, help, range, unit. Other commands use some of them.
#include "trainer/engine/optimizer.h"
#include "trainer/models/model.h"
#include "trainer/run/config.h"

namespace deeper {
namespace {

constexpr double kAny = Range::kAny, kPositive = Range::kPositive;

// Flags that accept only some values of an enum.
constexpr auto kEveryAugment = Choices(Augment());
constexpr Choice<Augment> kAugments[] = {kEveryAugment[0], kEveryAugment[1], kEveryAugment[2],
                                         kEveryAugment[3]};
constexpr Choice<Augment> kValPresets[] = {kEveryAugment[0], kEveryAugment[4], kEveryAugment[5]};
constexpr Choice<DType> kPrecisions[] = {
    {"auto", kAutoPrecision, "bf16 where the devices of all ranks compute it natively, else fp32"},
    {"fp32", DType::kF32, "single precision"},
    {"bf16", DType::kBf16, "less memory; faster on CPUs with bf16 instructions, and slower on others"}};
constexpr Choice<DType> kWirePrecisions[] = {{"fp32", DType::kF32}, {"bf16", DType::kBf16}};

std::vector<Flag> NetworkFlags(RunConfig& c) {
  return {
      {"model", OneOf(&c.model, ModelNames()), "network architecture"},
      {"num_classes", &c.num_classes, "number of classes",
       c.num_classes == 0 ? Range(0, 1e6, "that of the data set or checkpoint") : Range(1, 1e6)},
      {"image_size", &c.image_size, "height and width of the network's input",
       Range(0, 65500, "default of the model"), "pixels"},
      {"stem", &c.stem, "first layers of the network"},
      {"blur_pool", &c.blur_pool,
       "GoogLeNets: pool with stride 1, and blur with stride 2, in place of pools of stride 2"},
      {"aux", &c.aux, "auxiliary classifiers of the GoogLeNets"},
      {"aux_weight", &c.aux_weight, "weight of the auxiliary losses; the main loss has weight 1",
       Range(0, 1e3)},
      {"dropout", &c.dropout, "use dropout layers"},
      {"dropout_rate", &c.dropout_rate,
       "share of the values that each dropout layer outside auxiliary classifiers drops",
       Range(0, 0.95, "default of the model", -1)},
      {"init_from", &c.init_from,
       "initial weights: a checkpoint, or a file: HDF5, safetensors, of torch.save, or of Caffe. Classifiers "
       "start anew if they have another number, other names or another order of classes"},
      {"use_ema", &c.use_ema,
       "take the moving averages of a checkpoint's weights, if it has them, not the last weights"}};
}

std::vector<Flag> DataFlags(RunConfig& c) {
  return {
      {"data", &c.data, "directory that `pack` wrote"},
      {"val_data", &c.val_data, "directory of the evaluation data; empty: --data"},
      {"train_split", &c.train_split, "split of --data to train on"},
      {"val_split", &c.val_split, "split of --val_data to evaluate on; none: do not evaluate"},
      {"synthetic", &c.synthetic, "use generated images in place of --data"},
      {"synthetic_samples", &c.synthetic_samples,
       "number of generated images; an evaluation uses a tenth as many", Range(1, 1e8)},
      {"augment", OneOf(&c.augment, kAugments), "augmentation of training images"},
      {"flip", &c.flip, "how --augment=flip, crop and inception mirror images"},
      {"color_jitter", &c.color_jitter,
       "F: scale brightness, contrast and saturation by random factors between 1 - F and 1 + F",
       Range(0, 1, "0.5 with --augment=inception, else 0", -1)},
      {"pca_noise", &c.pca_noise,
       "standard deviation of random steps along the principal components of ImageNet's colours, as AlexNet "
       "has; usually 0.1",
       Range(0, 10)},
      {"trivial_augment", &c.trivial_augment,
       "change each image by one random operation of random strength: TrivialAugment, wide"},
      {"random_erasing", &c.random_erasing, "probability that a rectangle of an image is erased",
       Range(0, 1)},
      {"mixup", &c.mixup, "alpha of mixup's Beta distribution", Range(0, kMaxMixAlpha, "none")},
      {"cutmix", &c.cutmix,
       "alpha of CutMix's Beta distribution; with --mixup, one of the two is chosen at random",
       Range(0, kMaxMixAlpha, "none")},
      {"allow_bad", &c.allow_bad,
       "number of unreadable samples to replace by the next sample; one more ends the run", Range(0)},
      {"order", &c.order, "order of the training samples"},
      {"mean", &c.mean,
       "mean of each channel of pixels in 0..1, separated by commas; empty: that of the data set"},
      {"std", &c.stddev,
       "standard deviation, in the same form; the network's input is (x / 255 - mean) / std"},
      {"val_preset", OneOf(&c.val_preset, kValPresets), "preparation of images for evaluation"},
      {"workers", &c.workers, "loader threads per rank, which read, decode and augment",
       Range(0, 1024, "adaptive: more if the rank waits for data, at most one per core")},
      {"stage_dir", &c.stage_dir,
       "directory on a local disk, where each machine keeps a copy of the shards; originals are read until "
       "their copy is complete; empty: no copies"},
      {"direct_io", &c.direct_io,
       "bypass the page cache (O_DIRECT), for data sets larger than memory on fast disks"}};
}

std::vector<Flag> OptimizationFlags(RunConfig& c) {
  return {
      {"global_batch", &c.global_batch, "images per step, over all ranks", Range(1, 1e6)},
      {"micro_batch", &c.micro_batch, "images per forward pass on each rank",
       Range(0, 1e6, "as many as fit")},
      {"epochs", &c.epochs, "length of the training", Range(0, 1e6, "until --max_steps"), "epochs"},
      {"max_steps", &c.max_steps, "maximum length of the training", Range(0, kAny, "until --epochs"),
       "steps"},
      {"stop_at", &c.stop_at,
       "evaluate, save and end this command here; the schedule stays that of the whole length, and the next "
       "command resumes, for example with another --image_size",
       Range(0, 1e6, "at the end"), "epochs"},
      {"optimizer", OneOf(&c.optimizer, OptimizerNames()), "update rule"},
      {"lr", &c.lr, "base learning rate for the global batch, on any number of ranks", Range(kPositive, 1e6)},
      {"lr_schedule", &c.lr_schedule, "schedule of the learning rate"},
      {"lr_step_epochs", &c.lr_step_epochs, "step: time between two drops", Range(kPositive, 1e6), "epochs"},
      {"lr_gamma", &c.lr_gamma, "step: factor of each drop", Range(0, 1)},
      {"lr_power", &c.lr_power, "poly: exponent", Range(0, 100)},
      {"lr_min", &c.lr_min, "poly, linear, cosine: learning rate after the last step, at most --lr",
       Range(0, 1e6)},
      {"warmup_epochs", &c.warmup_epochs, "length of the linear warm-up of the learning rate from 0",
       Range(0, 1e6), "epochs"},
      {"momentum", &c.momentum, "momentum of the update", Range(0, 0.99999)},
      {"weight_decay", &c.weight_decay, "L2 decay of weights, but not of biases and batch normalisation",
       Range(0, 1)},
      {"lars_trust", &c.lars_trust, "lars: trust coefficient, a factor on the rates of all weights",
       Range(kPositive, 1)},
      {"lr_scale", &c.lr_scale,
       "comma-separated list of PATTERN:FACTOR: factors on the learning rate of the parameters whose names "
       "match, such as *.bias:2; the last match counts"},
      {"freeze", &c.freeze,
       "comma-separated list of patterns of parameters that do not change, such as conv*,inception3*; batch "
       "normalisation still updates its running statistics"},
      {"ema_decay", &c.ema_decay,
       "decay of moving averages of all weights and batch normalisation statistics, such as 0.999; "
       "evaluations, and commands that read the checkpoints, use the averages",
       Range(0, 0.999999, "no averages")},
      {"label_smoothing", &c.label_smoothing, "share of the target that is spread over all classes",
       Range(0, 0.999)},
      {"on_nonfinite", &c.on_nonfinite,
       "action if the loss or gradients of a step are NaN or infinite; such a step never changes the "
       "weights"},
      {"seed", &c.seed, "seed of initial weights, order of samples, augmentation and dropout"},
      {"deterministic", &c.deterministic, "runs that give bit-identical weights"},
      {"elastic_slices", &c.elastic_slices,
       "elastic: forward passes per global batch; a power of two, at least the number of ranks", Range(1)}};
}

std::vector<Flag> OutputFlags(RunConfig& c) {
  return {
      {"checkpoint_dir", &c.checkpoint_dir, "directory for checkpoints; empty: none are saved"},
      {"checkpoint_every", &c.checkpoint_every, "interval between checkpoints",
       Range(0, kAny, "at the end only"), "steps"},
      {"checkpoint_minutes", &c.checkpoint_minutes, "also save if the last checkpoint is this old",
       Range(0, 1e9, "never"), "minutes"},
      {"keep", &c.keep, "newest checkpoints to keep, in addition to the one with the best top-1",
       Range(1, 1e6)},
      {"keep_every", &c.keep_every, "also keep the checkpoints of steps that are multiples of this",
       Range(0, kAny, "none"), "steps"},
      {"resume", &c.resume,
       "checkpoint to resume from: latest (the newest valid one, if any), never, or a step"},
      {"force_resume", &c.force_resume,
       "resume even if image_size, mean, std, val_preset, class names or elastic settings differ from the "
       "checkpoint; at the start of an epoch, also if seed and order differ"},
      {"metrics_out", &c.metrics_out, "file for metrics as JSON lines, which `deeper report` reads"},
      {"tensorboard", &c.tensorboard, "directory for TensorBoard event files with the same curves"},
      {"trace", &c.trace, "file for a timeline of some steps of all ranks, which Perfetto opens"},
      {"trace_first", &c.trace_first, "first step of the timeline", Range(1)},
      {"trace_steps", &c.trace_steps, "length of the timeline", Range(1, 1000), "steps"},
      {"log_every", &c.log_every, "interval between progress lines and step metrics", Range(1), "steps"},
      {"progress", &c.progress, "display of the progress"},
      {"eval_every", &c.eval_every, "interval between evaluations", Range(0, kAny, "after every epoch"),
       "steps"}};
}

std::vector<Flag> MachineFlags(RunConfig& c) {
  return {
      {"device", &c.device, "device to compute on"},
      {"precision", OneOf(&c.precision, kPrecisions),
       "precision of activations and of the weights in products; sums are fp32"},
      {"fusion", &c.fusion, "cuda: fused kernels"},
      {"own_kernels", &c.own_kernels, "cuda: deeper's own tensor core kernels that may run"},
      {"trial_seconds", &c.trial_seconds,
       "cuda: end the process if a kernel or library call does not end within this time when it is tuned",
       Range(1, 86400), "seconds"},
      {"cuda_graph", &c.cuda_graph, "cuda: record a step once and replay it, in place of single launches"},
      {"early_starts", &c.early_starts,
       "cuda: kernels of deeper in a recorded step start before the previous one has ended, and wait for it"},
      {"plan_cache", &c.plan_cache,
       "cuda: file of tuned library calls; default: ~/.cache/deeper/plans.json; empty: tune in every run"},
      {"threads", &c.threads, "cpu: compute threads per rank",
       Range(0, 1024, "the rank's share of the cores that it may use")},
      {"cpu_layout", &c.cpu_layout, "cpu: layout of feature maps in memory, for tests and measurements"},
      {"watchdog_seconds", &c.watchdog_seconds,
       "abort with exit code 5 if a rank makes no progress or sends no heartbeat for this time",
       Range(0, 1e9, "disabled"), "seconds"},
      {"comm", &c.comm, "cuda: transport of gradients between GPUs"},
      {"wire", OneOf(&c.wire, kWirePrecisions),
       "precision of gradients between ranks; bf16 halves the bytes, and adds the rounding error to the "
       "gradients of the next step"},
      {"all_reduce", &c.all_reduce, "cpu: algorithm that sums gradients over ranks"},
      {"shard_optimizer", &c.shard_optimizer,
       "each rank keeps a slice of the momentum, updates that slice of the weights and sends it to the "
       "others; less memory per rank, 50 % more bytes per step, 100 % with --wire=bf16; bit-identical "
       "weights"},
      {"sync_bn", &c.sync_bn,
       "batch normalisation uses statistics over the images of all ranks, not of each rank; ranks wait "
       "for each other twice per layer"},
      {"bucket_mib", &c.bucket_mib, "size of the gradient buckets that are sent during backward",
       Range(0, 1e6, "tuned in the first steps; 8 with --deterministic=true and on GPUs"), "MiB"}};
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
