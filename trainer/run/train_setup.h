// The parts of a training run. They are opened, checked and announced before step 0.
#pragma once

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/nccl/device_communicator.h"
#include "data/io/directory_lock.h"
#include "data/load/loader.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_saver.h"
#include "trainer/engine/network.h"
#include "trainer/engine/schedule.h"
#include "trainer/engine/statistics_sum.h"
#include "trainer/monitor/metrics.h"
#include "trainer/monitor/progress.h"
#include "trainer/run/config.h"

namespace deeper {

// The fewest images of a global batch of `batch` that a forward pass with images has: on one of the ranks or,
// if `together`, on all of them. Passes have at most `rows` a rank; data/load/loader.h splits them.
int64_t SmallestPass(int64_t batch, int64_t rows, int ranks, bool together);

struct TrainSetup {
  // All arguments must outlive it. Progress and announcements go to `out`, which may be null.
  TrainSetup(const RunConfig& run_config, Communicator& ranks, Device& its_device, std::FILE* out);
  // Collective; call it once. A failure is the same on every rank and carries its exit code.
  absl::Status Prepare();

  // How images are prepared for evaluation; training augments them on top of that.
  LoaderOptions Preset() const;
  // This rank's training samples, from the current position.
  LoaderOptions TrainingInput() const;
  // Works on device memory; `comm` works on host memory.
  Communicator& device_comm() const { return connection.comm == nullptr ? comm : *connection.comm; }
  // The images of a step: --global_batch, or all samples if there are fewer.
  int64_t BatchRows() const {
    return std::clamp<int64_t>(train_data->info().samples, 1, config.global_batch);
  }
  // The largest share of them on one rank.
  int64_t ShareRows() const { return (BatchRows() + comm.size() - 1) / comm.size(); }
  void Warn(const absl::Status& status) {
    if (!status.ok()) progress.Print(absl::StrCat("warning: ", status.message()));
  }
  // Writes to the log and to the metrics.
  void Tell(const Event& event) {
    if (!event.text.empty()) progress.Print(event.text);
    if (!event.name.empty()) Warn(metrics.Write(event));
  }

  const RunConfig& config;
  Communicator& comm;
  Device& device;
  std::optional<StatisticsSum> statistics_sum;  // with --sync_bn
  Progress progress;
  MetricsWriter metrics;

  std::unique_ptr<Dataset> train_data, val_data;  // val_data may be null
  std::unique_ptr<Network> net, eval_net;         // eval_net is null with val_data
  std::unique_ptr<ParamStore> params;
  std::vector<float> lr_scales;  // OptimizerOptions::lr_scales
  std::unique_ptr<Loader> loader;
  DeviceCommunicator connection;  // destroyed before the memory that it works on
  int cores = 1;                  // of this rank
  GradientSum gradient_sum = GradientSum::kAnyOrder;
  DirectoryLock directory_lock;            // of --checkpoint_dir; before the saver, whose thread checks it
  std::unique_ptr<CheckpointSaver> saver;  // null without a --checkpoint_dir

  // The position of training, and its length.
  int64_t step = 0, total_steps = 0;
  int64_t last_step = 0;  // total_steps, or that of --stop_at
  DataState data_state;
  ScheduleOptions schedule;
  nlohmann::json model_config;

 private:
  // Prepare calls these in order; the ranks agree after each. Those not marked collective use this rank only.
  absl::Status ConnectDevices();       // collective
  absl::Status CheckSameGpus();        // collective
  absl::Status OpenData();             // collective
  absl::Status BuildNetworks();        // collective
  absl::Status CheckSameModel();       // collective
  absl::Status RestoreOrInitialize();  // collective
  absl::Status BindNetworks();
  absl::Status PrepareSaving();  // collective
  absl::Status StartLoader();
  // From here on files of earlier runs change: everything that may stop this one comes before.
  absl::Status OpenReports();
  absl::Status ClearCheckpointDirectory();
  void Announce();

  absl::Status PlanSteps();
  struct Networks {
    std::unique_ptr<Network> train, eval;
    size_t bytes = 0;  // of device memory, without parameters
  };
  absl::StatusOr<Networks> NetworksOf(int64_t rows);
  absl::StatusOr<Networks> FittingNetworks();
  absl::Status PrepareNetworks();       // collective
  absl::Status CheckBatchNorm() const;  // no forward pass may have one image only
  absl::StatusOr<bool> Resume();        // whether there was a checkpoint
  absl::Status LoadInitialWeights();    // collective
  nlohmann::ordered_json RunJson() const;
  int64_t TrainedParameters() const;

  PixelStats stats_;
  int64_t epoch_steps_ = 0;
  std::vector<std::string> decisions_;  // about resuming, for the announcement
};

}  // namespace deeper
