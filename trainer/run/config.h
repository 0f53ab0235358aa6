// The configuration of a run: a field per flag, validated before anything starts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "comm/gradient_reducer.h"
#include "comm/nccl/device_communicator.h"
#include "comm/watchdog/watchdog.h"
#include "data/image/augment.h"
#include "data/load/sample_order.h"
#include "kernels/base/own_kernels.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/schedule.h"
#include "trainer/models/model.h"
#include "trainer/monitor/progress.h"
#include "trainer/run/flag.h"

namespace deeper {

constexpr auto Choices(Stem) {
  return std::to_array<Choice<Stem>>(
      {{"default", Stem::kDefault, "as published: a 7x7 convolution of stride 2 and a pool"},
       {"medium", Stem::kMedium, "without the pool, for images of 28 to 112 px"},
       {"small", Stem::kSmall,
        "for images of 28 to 64 px: GoogLeNets begin with a 3x3 convolution of stride 1 and no pool"}});
}

enum class OnNonfinite { kStop, kSkip };
constexpr auto Choices(OnNonfinite) {
  return std::to_array<Choice<OnNonfinite>>({{"stop", OnNonfinite::kStop, "ends the run with exit code 6"},
                                             {"skip", OnNonfinite::kSkip, "continues with the next batch"}});
}

enum class Determinism { kFalse, kTrue, kElastic };
constexpr auto Choices(Determinism) {
  return std::to_array<Choice<Determinism>>(
      {{"false", Determinism::kFalse, "fastest; on CPUs, one or two ranks are deterministic anyway"},
       {"true", Determinism::kTrue, "the same number of ranks and --seed give the same bits"},
       {"elastic", Determinism::kElastic, "1, 2, 4, ... --elastic_slices ranks give the same bits"}});
}

enum class AllReduceKind { kAuto, kMpi };
constexpr auto Choices(AllReduceKind) {
  return std::to_array<Choice<AllReduceKind>>(
      {{"auto", AllReduceKind::kAuto,
        "within nodes first if ranks are placed node by node, the number of nodes and that of ranks on each "
        "node are powers of two above 1, and --deterministic=false; else mpi"},
       {"mpi", AllReduceKind::kMpi, "MPI_Iallreduce"}});
}

enum class Fusion { kOff, kAuto };
constexpr auto Choices(Fusion) {
  return std::to_array<Choice<Fusion>>({{"auto", Fusion::kAuto, "fused kernels wherever they fit"},
                                        {"off", Fusion::kOff, "layer by layer, for comparisons"}});
}

constexpr auto Choices(CpuLayout) {
  return std::to_array<Choice<CpuLayout>>(
      {{"auto", CpuLayout::kAuto, "nhwc for bf16 on processors with AMX, else blocked"},
       {"blocked", CpuLayout::kBlocked, "blocks of 16 channels with AVX-512, of 8 without"},
       {"nhwc", CpuLayout::kNhwc, "the channels of a pixel are contiguous"}});
}

constexpr auto Choices(DeviceType) {
  return std::to_array<Choice<DeviceType>>({{"cpu", DeviceType::kCpu}, {"cuda", DeviceType::kCuda}});
}

constexpr auto kAutoPrecision = static_cast<DType>(-1);  // until ChoosePrecision

// One field per flag of the same name; their rows are in config_flags.cpp. Zero or empty means not given.
struct RunConfig {
  // Network.
  std::string model = "googlenet";
  int64_t num_classes = 0;  // 0: as many as the dataset has
  int64_t image_size = 0;   // 0: the model's own
  Stem stem = Stem::kDefault;
  bool blur_pool = false;
  bool aux = true;
  double aux_weight = 0.3;
  bool dropout = true;
  double dropout_rate = -1;       // -1: the model's own
  DType precision = DType::kF32;  // or kBf16, kAutoPrecision
  std::string init_from;

  // Data.
  std::string data, val_data;  // val_data: `data`
  bool synthetic = false;
  int64_t synthetic_samples = 50000;
  static constexpr absl::string_view kNoSplit = "none";  // as val_split: no evaluation
  std::string train_split = "train", val_split = "val";
  Augment augment = Augment::kNone;  // up to kInception
  Flip flip = Flip::kRandom;
  double color_jitter = -1;  // -1: 0.5 with augment=inception, else 0
  double pca_noise = 0;      // standard deviation
  bool trivial_augment = false;
  double random_erasing = 0;            // probability
  double mixup = 0, cutmix = 0;         // alpha; 0: none
  Augment val_preset = Augment::kNone;  // or kTorchvision, kBvlc
  OrderKind order = OrderKind::kFull;
  std::string mean, stddev;  // comma lists; empty: the dataset's
  int workers = 0;           // per rank; 0: as many as needed, up to its cores
  int64_t allow_bad = 0;     // tolerated number of unreadable samples
  std::string stage_dir;     // empty: shards are read where they are
  bool direct_io = false;    // bypasses the page cache

  // Training.
  int64_t global_batch = 256;
  int64_t micro_batch = 0;  // rows per forward pass and rank; 0: as many as fit
  int64_t epochs = 0;       // 0: until max_steps
  int64_t max_steps = 0;
  double stop_at = 0;  // epochs after which this process ends; 0: at the end
  std::string optimizer = "sgd";
  double lr = 0.01;  // for the whole global batch
  ScheduleKind lr_schedule = ScheduleKind::kConstant;
  double lr_gamma = 0.1, lr_power = 0.5, lr_min = 0;
  double lr_step_epochs = 30;
  double warmup_epochs = 0;
  double momentum = 0.9, weight_decay = 0;
  double lars_trust = 0.001;
  double ema_decay = 0;          // 0: no averages
  bool use_ema = true;           // of checkpoints that are read, except for resuming
  std::string freeze, lr_scale;  // comma lists of PATTERN, and of PATTERN:FACTOR
  double label_smoothing = 0;
  uint64_t seed = 0;
  OnNonfinite on_nonfinite = OnNonfinite::kStop;
  Determinism deterministic = Determinism::kFalse;
  int elastic_slices = 8;                           // of a global batch, with deterministic=elastic
  DType wire = DType::kF32;                         // or kBf16: of gradients between ranks
  AllReduceKind all_reduce = AllReduceKind::kAuto;  // of gradients
  bool shard_optimizer = false;                     // each rank keeps a slice of the state
  bool sync_bn = false;                             // batch norm's statistics cover the rows of all ranks
  double bucket_mib = 0;  // 0: tuned in the first steps, or 8 where tuning could change bits

  // Checkpoints and reports.
  std::string checkpoint_dir;
  int64_t checkpoint_every = 0;   // steps; 0: at the end only
  double checkpoint_minutes = 0;  // 0: never by time
  int keep = 3;
  int64_t keep_every = 0;         // steps; 0: keeps none permanently
  std::string resume = "latest";  // latest | never | STEP
  bool force_resume = false;
  std::string metrics_out;
  std::string tensorboard;                    // directory
  std::string trace;                          // file
  int64_t trace_first = 10, trace_steps = 5;  // steps
  int64_t log_every = 20;
  ProgressStyle progress = ProgressStyle::kAuto;
  int64_t eval_every = 0;  // steps; 0: at the end of every epoch

  // Device and communication.
  DeviceType device = DeviceType::kCpu;
  int threads = 0;  // per rank, on a CPU; 0: its share of the cores
  CpuLayout cpu_layout = CpuLayout::kAuto;
  Transport comm = Transport::kAuto;
  double watchdog_seconds = 300;  // 0: none
  Fusion fusion = Fusion::kAuto;
  bool cuda_graph = true;
  bool early_starts = true;
  OwnKernels own_kernels = OwnKernels::kAll;
  int trial_seconds = 20;              // for a kernel in the tuner
  std::string plan_cache = "default";  // file; empty: none
};

// All flags of `train`, in groups, one row per field. They are bound to `config`.
std::vector<FlagGroup> ConfigFlags(RunConfig& config);

// Checks every field and their combinations. InvalidArgument names the flag, its value and what is allowed.
absl::Status Validate(const RunConfig& config);
inline bool IsElastic(const RunConfig& config) {
  return config.deterministic == Determinism::kElastic;
}

// InvalidArgument: the config does not allow this number of ranks, or a network with or without batch norm's
// running statistics. --deterministic=elastic excludes statistics: every slice has its own, and they are not
// merged in a fixed order. --sync_bn requires them. Without it, they need an image of every batch per rank.
absl::Status ValidateFor(const RunConfig& config, int ranks, bool has_statistics);

// The numbers of --mean or --std. InvalidArgument: `text` is not a comma-separated list of numbers.
absl::StatusOr<std::vector<float>> ParseNumbers(const char* flag, const std::string& text);

// The rows of --lr_scale, then those of --freeze. InvalidArgument: a flag is not a list of PATTERN:FACTOR
// with factors from 0 to 1000.
absl::StatusOr<std::vector<LrScale>> LrScalesOf(const RunConfig& config);

// Settings of other modules that follow from a valid config.
inline bool FusionOf(const RunConfig& config) {
  return config.fusion == Fusion::kAuto;
}
// Collective. Replaces precision=auto by bf16 if the devices of all ranks compute it natively, else by fp32.
void ChoosePrecision(const Device& device, Communicator& comm, RunConfig& config);
// A warning if the device emulates the chosen precision, else "".
std::string PrecisionWarning(const Device& device, const RunConfig& config);
size_t BucketBytesOf(const RunConfig& config);
// Collective. How the ranks of `comm` sum gradients.
GradientSum GradientSumOf(const RunConfig& config, Communicator& comm);
// Collective. The watchdog that the config asks for, or nullptr. Errors carry ExitCode::kCommunication.
absl::StatusOr<std::unique_ptr<Watchdog>> StartWatchdog(const RunConfig& config, Communicator& comm);

}  // namespace deeper
