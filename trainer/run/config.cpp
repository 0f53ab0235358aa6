#include "trainer/run/config.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/agree.h"
#include "comm/node_places.h"
#include "data/load/synthetic.h"
#include "data/shards/read_shards.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/schedule.h"

namespace deeper {
namespace {

template <class T>
struct Choice {
  const char* name;
  T value;
};

constexpr std::array kPrecisions{Choice<DType>{"fp32", DType::kF32}, Choice<DType>{"bf16", DType::kBf16}};
constexpr std::array kAugments{
    Choice<Augment>{"none", Augment::kNone}, Choice<Augment>{"flip", Augment::kFlip},
    Choice<Augment>{"crop", Augment::kCrop}, Choice<Augment>{"inception", Augment::kInception}};
constexpr std::array kValPresets{Choice<Augment>{"none", Augment::kNone},
                                 Choice<Augment>{"torchvision", Augment::kTorchvision},
                                 Choice<Augment>{"bvlc", Augment::kBvlc}};
constexpr std::array kOrders{Choice<OrderKind>{"full", OrderKind::kFull},
                             Choice<OrderKind>{"block", OrderKind::kBlock},
                             Choice<OrderKind>{"sequential", OrderKind::kSequential}};

template <class Table>
auto Find(const Table& table, const std::string& name) {
  return std::find_if(table.begin(), table.end(), [&](const auto& choice) { return choice.name == name; });
}

absl::Status OneOf(const char* flag, const std::string& value, const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, ": must be one of ", absl::StrJoin(allowed, ", ")));
}

template <class Table>
absl::Status OneOf(const char* flag, const std::string& value, const Table& table) {
  std::vector<std::string> names;
  for (const auto& choice : table) names.push_back(choice.name);
  return OneOf(flag, value, names);
}

absl::Status InRange(const char* flag, double value, double low, double high, const char* what) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, ": must be ", what));
}

bool IsPowerOfTwo(int value) {
  return value > 0 && (value & (value - 1)) == 0;
}

absl::StatusOr<std::vector<float>> ParseList(const char* flag, const std::string& text) {
  std::vector<float> values;
  for (const absl::string_view part : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    float value = 0;
    if (!absl::SimpleAtof(part, &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag, "=", text, ": not a comma-separated list of numbers"));
    }
    values.push_back(value);
  }
  return values;
}

absl::Status ValidateChoices(const RunConfig& c) {
  for (const absl::Status& status :
       {OneOf("stem", c.stem, {"default", "small"}), OneOf("precision", c.precision, kPrecisions),
        OneOf("augment", c.augment, kAugments), OneOf("val_preset", c.val_preset, kValPresets),
        OneOf("optimizer", c.optimizer, OptimizerNames()),
        OneOf("lr_schedule", c.lr_schedule, ScheduleNames()),
        OneOf("deterministic", c.deterministic, {"false", "true", "elastic"}),
        OneOf("wire", c.wire, {"fp32", "bf16"}), OneOf("all_reduce", c.all_reduce, {"auto", "mpi"}),
        OneOf("device", c.device, {"cpu", "cuda"}), OneOf("comm", c.comm, {"auto", "nccl", "mpi"}),
        OneOf("fusion", c.fusion, {"off", "auto"}), OneOf("order", c.order, kOrders),
        OneOf("on_nonfinite", c.on_nonfinite, {"stop", "skip"}),
        OneOf("progress", c.progress, {"auto", "bar", "lines"})}) {
    if (!status.ok()) return status;
  }
  if (c.comm == "nccl" && c.device != "cuda")
    return absl::InvalidArgumentError("--comm=nccl: NCCL needs --device=cuda; use --comm=auto");
  if (c.wire == "bf16" && c.device == "cuda" && c.comm != "mpi") {
    return absl::InvalidArgumentError(
        "--wire=bf16: NCCL would round every partial sum; with --device=cuda it takes --comm=mpi");
  }
  if (c.wire == "bf16" && c.deterministic != "false") {
    return absl::InvalidArgumentError(
        absl::StrCat("--wire=bf16: not with --deterministic=", c.deterministic,
                     ", as what rounding left out of the gradients so far is not saved"));
  }
  if (c.shard_optimizer && c.device != "cpu") {
    return absl::InvalidArgumentError(absl::StrCat("--shard_optimizer: not with --device=", c.device,
                                                   " so far: only on CPUs do ranks gather weights"));
  }
  if (c.sync_bn && c.device != "cpu") {
    return absl::InvalidArgumentError(
        absl::StrCat("--sync_bn: not with --device=", c.device,
                     " so far: only on CPUs does batch norm exchange its sums between ranks"));
  }
  return absl::OkStatus();
}

absl::Status ValidateNumbers(const RunConfig& c) {
  constexpr double kMany = 1e15;
  for (const absl::Status& status :
       {InRange("global_batch", static_cast<double>(c.global_batch), 1, kMany, "at least 1"),
        InRange("micro_batch", static_cast<double>(c.micro_batch), 0, kMany,
                "0 (as many rows as fit) or more"),
        InRange("epochs", static_cast<double>(c.epochs), 0, 1e6, "0 (until --max_steps) or more"),
        InRange("max_steps", static_cast<double>(c.max_steps), 0, kMany, "0 (until --epochs) or more"),
        InRange("lr", c.lr, 0, 1e6, "0 or more"),
        InRange("warmup_epochs", c.warmup_epochs, 0, 1e6, "0 or more"),
        InRange("lr_gamma", c.lr_gamma, 0, 1, "between 0 and 1"),
        InRange("lr_power", c.lr_power, 0, 100, "between 0 and 100"),
        InRange("lr_min", c.lr_min, 0, c.lr, "between 0 and --lr"),
        InRange("lr_step_epochs", c.lr_step_epochs, 1e-9, 1e6, "positive"),
        InRange("momentum", c.momentum, 0, 0.99999, "at least 0 and below 1"),
        InRange("weight_decay", c.weight_decay, 0, 1, "between 0 and 1"),
        InRange("aux_weight", c.aux_weight, 0, 1e3, "0 or more"),
        InRange("workers", c.workers, 0, 1024, "0 (as many as it takes, up to the cores of a rank) to 1024"),
        InRange("allow_bad", static_cast<double>(c.allow_bad), 0, kMany, "0 or more"),
        InRange("color_jitter", c.color_jitter == -1 ? 0 : c.color_jitter, 0, 1,
                "between 0 and 1, or -1 (0.5 with --augment=inception)"),
        InRange("random_erasing", c.random_erasing, 0, 1, "between 0 and 1"),
        InRange("mixup", c.mixup, 0, kMaxMixAlpha, "between 0 (none) and 4"),
        InRange("cutmix", c.cutmix, 0, kMaxMixAlpha, "between 0 (none) and 4"),
        InRange("label_smoothing", c.label_smoothing, 0, 0.999, "at least 0 and below 1"),
        InRange("threads", c.threads, 0, 1024, "0 (a fair share of the cores) to 1024"),
        InRange("bucket_mib", c.bucket_mib, 0, 1e6, "0 (found in the first steps) or more"),
        InRange("keep", c.keep, 1, 1e6, "at least 1"),
        InRange("checkpoint_every", static_cast<double>(c.checkpoint_every), 0, kMany,
                "0 (at the end only) or more"),
        InRange("checkpoint_minutes", c.checkpoint_minutes, 0, 1e9, "0 (whatever the time) or more"),
        InRange("keep_every", static_cast<double>(c.keep_every), 0, kMany, "0 (none for good) or more"),
        InRange("trace_first", static_cast<double>(c.trace_first), 1, kMany, "at least 1"),
        InRange("trace_steps", static_cast<double>(c.trace_steps), 1, 1000, "between 1 and 1000"),
        InRange("log_every", static_cast<double>(c.log_every), 1, kMany, "at least 1"),
        InRange("eval_every", static_cast<double>(c.eval_every), 0, kMany, "0 (every epoch) or more"),
        InRange("watchdog_seconds", c.watchdog_seconds, 0, 1e9, "0 (no watchdog) or more"),
        InRange("synthetic_samples", static_cast<double>(c.synthetic_samples), 1, kMany, "at least 1")}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// What an elastic run computes must follow from its flags alone.
absl::Status ValidateElasticFlags(const RunConfig& c) {
  const auto invalid = [](const auto&... words) {
    return absl::InvalidArgumentError(absl::StrCat("--deterministic=elastic: ", words...));
  };
  if (c.device != "cpu") return invalid("only with --device=cpu: NCCL has an order of sums of its own");
  if (!IsPowerOfTwo(c.elastic_slices))
    return invalid("--elastic_slices=", c.elastic_slices, " is no power of two");
  if (c.global_batch < c.elastic_slices)
    return invalid("--global_batch=", c.global_batch, " is less than --elastic_slices=", c.elastic_slices);
  if (c.micro_batch != 0)
    return invalid("a slice is one forward pass: --elastic_slices takes the place of --micro_batch");
  if (c.threads == 0)
    return invalid(
        "give --threads, the same in every run: on a CPU rounding depends on the threads of a rank");
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateElastic(const RunConfig& c, int ranks, bool has_statistics) {
  if (!IsElastic(c)) return absl::OkStatus();
  if (!IsPowerOfTwo(ranks) || ranks > c.elastic_slices) {
    return absl::InvalidArgumentError(
        absl::StrCat("--deterministic=elastic: ", ranks,
                     " ranks; it takes a power of two, at most --elastic_slices=", c.elastic_slices));
  }
  if (has_statistics) {
    return absl::InvalidArgumentError(
        absl::StrCat("--deterministic=elastic: ", c.model,
                     " has batch normalisation, whose running statistics depend on the "
                     "number of ranks"));
  }
  return absl::OkStatus();
}

absl::Status ValidateSyncBn(const RunConfig& c, bool has_statistics) {
  if (!c.sync_bn || has_statistics) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--sync_bn: ", c.model, " has no batch normalisation"));
}

absl::Status ValidateShares(const RunConfig& c, int ranks, bool has_statistics) {
  if (c.global_batch >= ranks || c.sync_bn || !has_statistics) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--global_batch=", c.global_batch, " is smaller than the number of ranks, ", ranks,
                   ": a rank without images has no statistics for batch normalisation; raise it, use fewer "
                   "ranks, or --sync_bn"));
}

absl::Status Validate(const RunConfig& c) {
  RETURN_IF_ERROR(ValidateChoices(c));
  RETURN_IF_ERROR(ValidateNumbers(c));
  if (IsElastic(c)) {
    RETURN_IF_ERROR(ValidateElasticFlags(c));
  }
  for (const auto& [flag, text] : {std::pair{"mean", c.mean}, {"std", c.stddev}}) {
    if (absl::StatusOr<std::vector<float>> list = ParseList(flag, text); !list.ok()) return list.status();
  }
  int64_t step = 0;
  if (c.resume != "latest" && c.resume != "never" && !(absl::SimpleAtoi(c.resume, &step) && step >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--resume=", c.resume, ": must be latest, never or the number of a step"));
  }
  if (c.data.empty() == !c.synthetic)
    return absl::InvalidArgumentError(
        "give either --data=DIR (packed shards, see `deeper pack`) or --synthetic");
  return absl::OkStatus();
}

DType PrecisionOf(const RunConfig& config) {
  return Find(kPrecisions, config.precision)->value;
}
bool FusionOf(const RunConfig& config) {
  return config.fusion == "auto";
}

void ConfigureEvaluationInput(const RunConfig& config, LoaderOptions& options) {
  options.augment = Find(kValPresets, config.val_preset)->value;
  options.bgr = options.augment == Augment::kBvlc;
  options.workers = config.workers;
}

void ConfigureTrainingInput(const RunConfig& config, LoaderOptions& options) {
  ConfigureEvaluationInput(config, options);
  options.augment = Find(kAugments, config.augment)->value;
  constexpr double kHowards = 0.5;
  options.color_jitter = config.color_jitter >= 0                 ? config.color_jitter
                         : options.augment == Augment::kInception ? kHowards
                                                                  : 0;
  options.random_erasing = config.random_erasing;
  options.mixup = config.mixup;
  options.cutmix = config.cutmix;
}

OrderKind OrderOf(const RunConfig& config) {
  return Find(kOrders, config.order)->value;
}

// Tuned sizes differ from run to run, and with them the order of sums on more than two ranks; and what a GPU
// has recorded stays as it is.
size_t BucketBytesOf(const RunConfig& config) {
  constexpr double kMiB = 1 << 20;
  if (config.bucket_mib > 0) return std::max<size_t>(1, static_cast<size_t>(config.bucket_mib * kMiB));
  const bool fixed = config.deterministic == "true" || config.device == "cuda";
  return fixed ? static_cast<size_t>(8 * kMiB) : kTunedBuckets;
}

// With --deterministic=true, the bits must not depend on which nodes the ranks are on.
GradientSum GradientSumOf(const RunConfig& config, Communicator& comm) {
  if (IsElastic(config)) return GradientSum::kTree;
  if (config.wire == "bf16") return GradientSum::kBf16;
  const bool free = config.all_reduce == "auto" && config.deterministic == "false" && config.device == "cpu";
  return free && TreeKeepsToNodes(GatherNodePlaces(comm)) ? GradientSum::kTree : GradientSum::kAnyOrder;
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config, const std::string& dir,
                                                     const std::string& split, Communicator& comm) {
  if (!config.synthetic) {
    absl::StatusOr<std::string> index = std::string();
    if (comm.rank() == 0) index = ReadSplitIndex(dir, split);
    absl::Status status = Agree(comm, WithExitCode(index.status(), ExitCode::kData));
    if (!status.ok()) return status;
    Broadcast(comm, 0, &*index);
    const auto report = [rank = comm.rank()](const std::string& message) {
      std::fprintf(stderr, "deeper: rank %d: %s\n", rank, message.c_str());
    };
    absl::StatusOr<std::unique_ptr<Dataset>> shards =
        OpenSplit(dir, *std::move(index), {config.stage_dir, report}, config.direct_io);
    status = Agree(comm, WithExitCode(shards.status(), ExitCode::kData));
    if (!status.ok()) return status;
    return shards;
  }
  SyntheticOptions options;
  const bool training = split == config.train_split;
  options.samples = training ? config.synthetic_samples : std::max<int64_t>(1, config.synthetic_samples / 10);
  if (config.num_classes > 0) options.classes = static_cast<int>(config.num_classes);
  if (config.image_size > 0) options.height = options.width = static_cast<int>(config.image_size);
  options.seed = config.seed + (training ? 0 : 1);
  return MakeSyntheticDataset(options);
}

absl::StatusOr<Model> ModelFor(const RunConfig& config, const DatasetInfo& data, bool training) {
  const auto classes = static_cast<int64_t>(data.classes.size());
  if (config.num_classes != 0 && config.num_classes < classes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--num_classes=", config.num_classes, ": the dataset has ", classes, " classes"));
  }
  ModelOptions options;
  options.num_classes = config.num_classes != 0 ? config.num_classes : classes;
  options.channels = data.channels;
  options.image_size = config.image_size;
  options.small_stem = config.stem == "small";
  options.aux = config.aux && training;
  options.aux_weight = static_cast<float>(config.aux_weight);
  options.dropout = config.dropout && training;
  return MakeModel(config.model, options);
}

absl::StatusOr<PixelStats> PixelStatsFor(const RunConfig& config, const DatasetInfo& data) {
  PixelStats stats = data.stats;
  if (config.val_preset == "bvlc") {  // Caffe's: values up to 255, less a mean
    if (data.channels != 3)
      return absl::InvalidArgumentError("--val_preset=bvlc: it is of images in colour, and these are grey");
    stats = {{104 / 255.0f, 117 / 255.0f, 123 / 255.0f}, std::vector<float>(3, 1 / 255.0f)};
  }
  const auto override_with = [&](const char* flag, const std::string& text,
                                 std::vector<float>& values) -> absl::Status {
    if (text.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(values, ParseList(flag, text));
    if (values.size() == static_cast<size_t>(data.channels)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag, "=", text, ": the images have ", data.channels, " channel(s)"));
  };
  RETURN_IF_ERROR(override_with("mean", config.mean, stats.mean));
  RETURN_IF_ERROR(override_with("std", config.stddev, stats.stddev));
  if (std::any_of(stats.stddev.begin(), stats.stddev.end(), [](float s) { return !(s > 0); })) {
    return absl::InvalidArgumentError("--std: every channel's standard deviation must be positive");
  }
  return stats;
}

absl::StatusOr<std::unique_ptr<Watchdog>> StartWatchdog(const RunConfig& config, Communicator& comm) {
  if (config.watchdog_seconds <= 0) return nullptr;
  // A run that saves has a use of its own for SIGTERM (trainer/run/stop.h).
  const bool delay_sigterm = comm.size() > 1 && config.checkpoint_dir.empty();
  ASSIGN_OR_RETURN(std::unique_ptr<Watchdog> watchdog,
                   WithExitCode(Watchdog::Start(comm, {.deadline_seconds = config.watchdog_seconds,
                                                       .delay_sigterm = delay_sigterm}),
                                ExitCode::kCommunication));
  return watchdog;
}

nlohmann::json ModelConfigJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                               const PixelStats& stats) {
  nlohmann::json json = {{"model", model.name},
                         {"num_classes", model.num_classes},
                         {"image_size", model.image_size},
                         {"channels", model.channels},
                         {"stem", config.stem},
                         {"aux", config.aux},
                         {"classes", data.classes},
                         {"mean", stats.mean},
                         {"std", stats.stddev}};
  if (config.val_preset != "none") json["val_preset"] = config.val_preset;
  if (IsElastic(config)) json["elastic"] = {{"slices", config.elastic_slices}, {"threads", config.threads}};
  return json;
}

}  // namespace deeper
