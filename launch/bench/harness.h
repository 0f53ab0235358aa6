// Shared by the bench commands: training of a network, times, and JSON output.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"
#include "data/load/loader.h"
#include "kernels/base/device.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/network.h"
#include "trainer/engine/optimizer.h"
#include "trainer/engine/params.h"
#include "trainer/engine/train_step.h"
#include "trainer/run/config.h"
#include "trainer/scaling/statistics.h"

namespace deeper {

// Trains a network repeatedly on one batch of synthetic images. Ranks do not exchange gradients.
class BenchTraining {
 public:
  // Validates `config` and prepares for `batch` images per rank. Collective; call once.
  absl::Status Prepare(RunConfig config, int64_t batch, Communicator& comm);

  // Makes the batch the network's input. The device may still be copying it when this returns.
  void Load() { net_->Load(images_, config_.seed); }
  // Enqueues forward, backward and update, from the second time as a recording if the device has these.
  void Step() {
    recordings_[net_->image_buffer()]->Run([this] { StepUnrecorded(); });
  }
  void StepUnrecorded();
  // A step of training on the batch: TrainStep::Run.
  absl::Status TrainingStep() { return train_step_->Run(static_cast<float>(config_.lr)).status(); }

  const RunConfig& config() const { return config_; }  // with the precision that the device has chosen
  Device& device() const { return *device_; }
  Network& net() const { return *net_; }
  ParamStore& params() const { return *params_; }
  Optimizer& optimizer() const { return *optimizer_; }

 private:
  RunConfig config_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Dataset> data_;
  std::unique_ptr<Network> net_;
  std::unique_ptr<ParamStore> params_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Recording> recordings_[Network::kImageBuffers];
  std::unique_ptr<Loader> loader_, repeated_;
  Batch images_;
  std::unique_ptr<Communicator> single_;
  std::unique_ptr<GradientAccumulator> accumulator_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<FiniteGuard> guard_;
  std::unique_ptr<TrainStep> train_step_;
};

// Milliseconds of `work` on this rank. Collective: all ranks begin together.
template <class Work>
double MillisecondsTogether(Communicator& comm, const Work& work) {
  comm.Barrier();
  return 1e3 * SecondsOf(work);
}

// Prints `json`, followed by the fields of every benchmark, on standard output.
void PrintBenchmark(nlohmann::ordered_json json, nlohmann::ordered_json settings,
                    const std::string& hardware);

}  // namespace deeper
