#include "launch/bench/harness.h"

#include <cstdio>
#include <utility>

#include "comm/agree.h"
#include "kernels/base/status.h"
#include "launch/cli/run_config.h"
#include "launch/cli/version.h"
#include "trainer/run/inputs.h"

namespace deeper {

namespace {

// The same batch for ever.
class OneBatch final : public Loader {
 public:
  explicit OneBatch(const Batch& batch) : batch_(batch) {}
  absl::StatusOr<Batch> Next() override { return batch_; }
  StageTimes times() const override { return {}; }
  int workers() const override { return 0; }
  std::map<int64_t, std::string> bad_samples() const override { return {}; }

 private:
  const Batch batch_;
};

}  // namespace

absl::Status BenchTraining::Prepare(RunConfig config, int64_t batch, Communicator& comm) {
  config_ = std::move(config);
  config_.synthetic = true;
  config_.synthetic_samples = batch;
  RETURN_IF_ERROR(Validate(config_));
  ASSIGN_OR_RETURN(device_, MakeDeviceFor(config_, comm));
  ASSIGN_OR_RETURN(data_, OpenDataset(config_, "", config_.train_split, comm));
  const auto prepare_rank = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, data_->info(), /*training=*/true));
    ASSIGN_OR_RETURN(
        net_,
        Network::Prepare(model, {batch, config_.precision, /*training=*/true, FusionOf(config_)}, *device_));
    ASSIGN_OR_RETURN(params_, ParamStore::Create(net_->Params(), *device_, /*training=*/true,
                                                 net_->wants_narrow_params(), {OptimizerState("sgd")}));
    params_->Initialize(config_.seed);
    RETURN_IF_ERROR(net_->Bind(*params_));
    LoaderOptions input;
    net_->Configure(input);
    input.global_batch = batch;
    input.epochs = 1;
    ASSIGN_OR_RETURN(loader_, MakeLoader(*data_, input));
    ASSIGN_OR_RETURN(images_, loader_->Next());  // stays valid, because there is no further Next
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(Agree(comm, prepare_rank()));
  const OptimizerOptions options = {.momentum = static_cast<float>(config_.momentum)};
  optimizer_ = std::make_unique<Optimizer>(options, *params_, *device_);
  optimizer_->BeginStep(static_cast<float>(config_.lr));
  for (auto& recording : recordings_) recording = device_->MakeRecording();
  single_ = MakeSingleCommunicator();
  repeated_ = std::make_unique<OneBatch>(images_);
  accumulator_ = std::make_unique<GradientAccumulator>(*params_, *device_);
  reducer_ = std::make_unique<GradientReducer>(*single_, params_->grads(), net_->gradient_pieces(), 1);
  guard_ = std::make_unique<FiniteGuard>(*net_, *params_, *single_, *device_);
  train_step_ = std::make_unique<TrainStep>(*repeated_, *net_, *accumulator_, *reducer_, *guard_, *optimizer_,
                                            *device_, config_.seed);
  return absl::OkStatus();
}

void BenchTraining::StepUnrecorded() {
  net_->Forward();
  net_->Backward([](size_t) {});
  optimizer_->Step();
}

void PrintBenchmark(nlohmann::ordered_json json, nlohmann::ordered_json settings,
                    const std::string& hardware) {
  json["settings"] = std::move(settings);
  json["hardware"] = hardware;
  json["versions"] = Versions();
  std::printf("%s\n", json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
}

}  // namespace deeper
