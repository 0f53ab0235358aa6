// Everything a run is told, as the command line says it, checked before anything starts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/gradient_reducer.h"
#include "comm/watchdog/watchdog.h"
#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "nlohmann/json.hpp"
#include "trainer/models/model.h"

namespace deeper {

// One field per flag of the same name; docs/cli.md explains them. Zero or empty: not given.
struct RunConfig {
  // What is trained.
  std::string model = "googlenet";
  int64_t num_classes = 0;       // 0: as many as the dataset has
  int64_t image_size = 0;        // 0: the model's own
  std::string stem = "default";  // default | small
  bool aux = true;
  double aux_weight = 0.3;
  bool dropout = true;
  std::string precision = "fp32";  // fp32 | bf16
  std::string init_from;

  // On what.
  std::string data, val_data;  // val_data: `data`
  bool synthetic = false;
  int64_t synthetic_samples = 50000;
  std::string train_split = "train", val_split = "val";
  std::string augment = "none";     // none | flip | crop | inception
  double color_jitter = -1;         // -1: 0.5 with augment=inception, else 0
  double random_erasing = 0;        // probability
  double mixup = 0, cutmix = 0;     // alpha; 0: none
  std::string val_preset = "none";  // none | torchvision | bvlc
  std::string order = "full";       // full | block | sequential
  std::string mean, stddev;         // comma lists; empty: the dataset's
  int workers = 0;                  // of a rank; 0: as many as it takes, up to its cores
  int64_t allow_bad = 0;            // samples that may turn out unreadable
  std::string stage_dir;            // empty: shards are read where they are
  bool direct_io = false;           // past the page cache

  // How.
  int64_t global_batch = 256;
  int64_t micro_batch = 0;  // rows of a forward pass on a rank; 0: as many as fit
  int64_t epochs = 0;       // 0: until max_steps
  int64_t max_steps = 0;
  std::string optimizer = "sgd";         // sgd | nesterov
  double lr = 0.01;                      // for the global batch as given
  std::string lr_schedule = "constant";  // constant | step | poly | cosine
  double lr_gamma = 0.1, lr_power = 0.5, lr_min = 0;
  double lr_step_epochs = 30;
  double warmup_epochs = 0;
  double momentum = 0.9, weight_decay = 0;
  double label_smoothing = 0;
  uint64_t seed = 0;
  std::string on_nonfinite = "stop";    // stop | skip
  std::string deterministic = "false";  // false | true | elastic
  int elastic_slices = 8;               // of a global batch, with deterministic=elastic
  std::string wire = "fp32";            // fp32 | bf16: of gradients between ranks
  std::string all_reduce = "auto";      // auto | mpi: of gradients
  bool shard_optimizer = false;         // momentum: a slice on every rank
  bool sync_bn = false;                 // batch norm's statistics are over the rows of all ranks
  double bucket_mib = 0;                // 0: found in the first steps, or 8 where that could change bits

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
  std::string progress = "auto";  // auto | bar | lines
  int64_t eval_every = 0;         // steps; 0: at the end of every epoch

  // Where.
  std::string device = "cpu";     // cpu | cuda
  int threads = 0;                // of a rank, on a CPU; 0: its share of the cores
  std::string comm = "auto";      // auto | nccl | mpi
  double watchdog_seconds = 300;  // 0: none
  std::string fusion = "auto";    // off | auto
  bool cuda_graph = true;
  std::string plan_cache = "default";  // file; empty: none
};

// InvalidArgument names the flag, its value and what is allowed. Checks each field by itself and against the
// others, not against data.
absl::Status Validate(const RunConfig& config);
inline bool IsElastic(const RunConfig& config) {
  return config.deterministic == "elastic";
}

// InvalidArgument if --deterministic=elastic cannot keep its promise on so many ranks, or for a network with
// running statistics: every slice has its own, and they are not merged in an order of their own.
absl::Status ValidateElastic(const RunConfig& config, int ranks, bool has_statistics);

// InvalidArgument if --sync_bn is given for a network without running statistics, which has no batch norm.
absl::Status ValidateSyncBn(const RunConfig& config, bool has_statistics);

// InvalidArgument if a rank gets no image of any batch, where its running statistics would count all the
// same.
absl::Status ValidateShares(const RunConfig& config, int ranks, bool has_statistics);

// The parts of a RunConfig in the types of the layers below. The config is valid.
DType PrecisionOf(const RunConfig& config);
bool FusionOf(const RunConfig& config);
// What the config says of images besides their statistics: for training, and to evaluate.
void ConfigureTrainingInput(const RunConfig& config, LoaderOptions& options);
void ConfigureEvaluationInput(const RunConfig& config, LoaderOptions& options);
OrderKind OrderOf(const RunConfig& config);
// As GradientReducer wants them.
size_t BucketBytesOf(const RunConfig& config);

// Collective. How ranks that communicate over `comm` add up gradients.
GradientSum GradientSumOf(const RunConfig& config, Communicator& comm);

// Collective. Opens split `split` of `dir`, whose index rank 0 reads and sends to the others; or makes up
// data where the config says synthetic (a tenth as much to evaluate on). Errors, the same on all ranks, carry
// ExitCode::kData.
absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config, const std::string& dir,
                                                     const std::string& split, Communicator& comm);

// The model for this dataset: its channels, and its classes unless num_classes says otherwise.
// InvalidArgument if num_classes is smaller than the dataset's.
absl::StatusOr<Model> ModelFor(const RunConfig& config, const DatasetInfo& data, bool training);

// The pixel statistics the model sees: --mean and --std, or the dataset's, or those of --val_preset=bvlc, in
// the order of the model's channels. InvalidArgument if their number does not match `channels`.
absl::StatusOr<PixelStats> PixelStatsFor(const RunConfig& config, const DatasetInfo& data);

// Collective. The watchdog that the config asks for, or nullptr. Errors carry ExitCode::kCommunication.
absl::StatusOr<std::unique_ptr<Watchdog>> StartWatchdog(const RunConfig& config, Communicator& comm);

// What a checkpoint must say of its network so that `eval`, `predict` and a resumed run can make it again:
// "model", "num_classes", "image_size", "channels", "stem", "aux", "classes", "mean", "std", and "val_preset"
// if there is one. An elastic run adds "elastic", what its bits depend on besides: it goes on with the same
// or not at all.
nlohmann::json ModelConfigJson(const RunConfig& config, const Model& model, const DatasetInfo& data,
                               const PixelStats& stats);

}  // namespace deeper
