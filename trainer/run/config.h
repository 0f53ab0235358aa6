// The configuration of a run: a field per flag, validated before anything starts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/gradient_reducer.h"
#include "comm/nccl/device_communicator.h"
#include "comm/watchdog/watchdog.h"
#include "data/image/augment.h"
#include "data/load/sample_order.h"
#include "trainer/engine/schedule.h"
#include "trainer/monitor/progress.h"
#include "trainer/run/flag.h"

namespace deeper {

enum class Stem { kDefault, kSmall };
constexpr auto Choices(Stem) {
  return std::to_array<Choice<Stem>>(
      {{"default", Stem::kDefault, "as published"},
       {"small", Stem::kSmall,
        "for images of 28 to 64 px: a GoogLeNet begins with a 3x3 convolution of stride 1, without a pool"}});
}

enum class OnNonfinite { kStop, kSkip };
constexpr auto Choices(OnNonfinite) {
  return std::to_array<Choice<OnNonfinite>>({{"stop", OnNonfinite::kStop, "ends with exit code 6"},
                                             {"skip", OnNonfinite::kSkip, "goes on with the next batch"}});
}

enum class Determinism { kFalse, kTrue, kElastic };
constexpr auto Choices(Determinism) {
  return std::to_array<Choice<Determinism>>(
      {{"false", Determinism::kFalse, "the fastest; on CPUs one or two ranks are deterministic all the same"},
       {"true", Determinism::kTrue, "the same number of ranks and --seed give the same bits"},
       {"elastic", Determinism::kElastic, "1, 2, 4, ... --elastic_slices ranks give the same bits"}});
}

enum class AllReduceKind { kAuto, kMpi };
constexpr auto Choices(AllReduceKind) {
  return std::to_array<Choice<AllReduceKind>>(
      {{"auto", AllReduceKind::kAuto,
        "within nodes first where ranks lie node by node, a power of two on each of several, and "
        "--deterministic=false; else mpi"},
       {"mpi", AllReduceKind::kMpi, "MPI_Iallreduce"}});
}

enum class Fusion { kOff, kAuto };
constexpr auto Choices(Fusion) {
  return std::to_array<Choice<Fusion>>({{"auto", Fusion::kAuto, "fused kernels wherever they fit"},
                                        {"off", Fusion::kOff, "layer by layer, for comparison"}});
}

constexpr auto Choices(DeviceType) {
  return std::to_array<Choice<DeviceType>>({{"cpu", DeviceType::kCpu}, {"cuda", DeviceType::kCuda}});
}

// One field per flag of the same name; their rows are in config_flags.cpp. Zero or empty: not given.
struct RunConfig {
  // What is trained.
  std::string model = "googlenet";
  int64_t num_classes = 0;  // 0: as many as the dataset has
  int64_t image_size = 0;   // 0: the model's own
  Stem stem = Stem::kDefault;
  bool aux = true;
  double aux_weight = 0.3;
  bool dropout = true;
  DType precision = DType::kF32;  // or kBf16
  std::string init_from;

  // On what.
  std::string data, val_data;  // val_data: `data`
  bool synthetic = false;
  int64_t synthetic_samples = 50000;
  std::string train_split = "train", val_split = "val";
  Augment augment = Augment::kNone;     // up to kInception
  double color_jitter = -1;             // -1: 0.5 with augment=inception, else 0
  double random_erasing = 0;            // probability
  double mixup = 0, cutmix = 0;         // alpha; 0: none
  Augment val_preset = Augment::kNone;  // or kTorchvision, kBvlc
  OrderKind order = OrderKind::kFull;
  std::string mean, stddev;  // comma lists; empty: the dataset's
  int workers = 0;           // of a rank; 0: as many as it takes, up to its cores
  int64_t allow_bad = 0;     // samples that may turn out unreadable
  std::string stage_dir;     // empty: shards are read where they are
  bool direct_io = false;    // past the page cache

  // How.
  int64_t global_batch = 256;
  int64_t micro_batch = 0;  // rows of a forward pass on a rank; 0: as many as fit
  int64_t epochs = 0;       // 0: until max_steps
  int64_t max_steps = 0;
  std::string optimizer = "sgd";
  double lr = 0.01;  // for the global batch as given
  ScheduleKind lr_schedule = ScheduleKind::kConstant;
  double lr_gamma = 0.1, lr_power = 0.5, lr_min = 0;
  double lr_step_epochs = 30;
  double warmup_epochs = 0;
  double momentum = 0.9, weight_decay = 0;
  double label_smoothing = 0;
  uint64_t seed = 0;
  OnNonfinite on_nonfinite = OnNonfinite::kStop;
  Determinism deterministic = Determinism::kFalse;
  int elastic_slices = 8;                           // of a global batch, with deterministic=elastic
  DType wire = DType::kF32;                         // or kBf16: of gradients between ranks
  AllReduceKind all_reduce = AllReduceKind::kAuto;  // of gradients
  bool shard_optimizer = false;                     // momentum: a slice on every rank
  bool sync_bn = false;                             // batch norm's statistics are over the rows of all ranks
  double bucket_mib = 0;  // 0: found in the first steps, or 8 where that could change bits

  // Kept and reported.
  std::string checkpoint_dir;
  int64_t checkpoint_every = 0;   // steps; 0: at the end only
  double checkpoint_minutes = 0;  // 0: whatever the time
  int keep = 3;
  int64_t keep_every = 0;         // steps; 0: none for good
  std::string resume = "latest";  // latest | never | STEP
  bool force_resume = false;
  std::string metrics_out;
  std::string tensorboard;                    // directory
  std::string trace;                          // file
  int64_t trace_first = 10, trace_steps = 5;  // steps
  int64_t log_every = 20;
  ProgressStyle progress = ProgressStyle::kAuto;
  int64_t eval_every = 0;  // steps; 0: at the end of every epoch

  // Where.
  DeviceType device = DeviceType::kCpu;
  int threads = 0;  // of a rank, on a CPU; 0: its share of the cores
  Transport comm = Transport::kAuto;
  double watchdog_seconds = 300;  // 0: none
  Fusion fusion = Fusion::kAuto;
  bool cuda_graph = true;
  std::string plan_cache = "default";  // file; empty: none
};

// A row per field, in groups: all flags of `train`. They are bound to `config`.
std::vector<FlagGroup> ConfigFlags(RunConfig& config);

// InvalidArgument names the flag, its value and what is allowed. Checks fields, alone and against each other.
absl::Status Validate(const RunConfig& config);
inline bool IsElastic(const RunConfig& config) {
  return config.deterministic == Determinism::kElastic;
}

// InvalidArgument: not on so many ranks, or not for a network with or without batch norm's running
// statistics. --deterministic=elastic takes no statistics: every slice has its own, and they are not merged
// in a fixed order. --sync_bn needs statistics, which need an image of every batch on each rank.
absl::Status ValidateFor(const RunConfig& config, int ranks, bool has_statistics);

// The numbers of --mean or --std. InvalidArgument: `text` is no comma-separated list of numbers.
absl::StatusOr<std::vector<float>> ParseNumbers(const char* flag, const std::string& text);

// What the layers below make of the config, which is valid.
inline bool FusionOf(const RunConfig& config) {
  return config.fusion == Fusion::kAuto;
}
size_t BucketBytesOf(const RunConfig& config);
// Collective. How ranks that communicate over `comm` add up gradients.
GradientSum GradientSumOf(const RunConfig& config, Communicator& comm);
// Collective. The watchdog that the config asks for, or nullptr. Errors carry ExitCode::kCommunication.
absl::StatusOr<std::unique_ptr<Watchdog>> StartWatchdog(const RunConfig& config, Communicator& comm);

}  // namespace deeper
