#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/atomic_file.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/placement.h"
#include "launch/cli/run_flags.h"
#include "nlohmann/json.hpp"
#include "trainer/engine/network.h"
#include "trainer/engine/optimizer.h"
#include "trainer/monitor/step_profile.h"
#include "trainer/monitor/trace_file.h"
#include "trainer/run/inputs.h"
#include "trainer/scaling/gpu_spec.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench step",
    .summary = "times a training step on data that is already in memory",
    .operands = "",
    .details =
        "Trains on one batch of made-up images again and again: forward, backward, update; no reading, no "
        "other\n"
        "ranks. After a warm-up, over which the loss must fall, prints medians over the repeats as JSON.\n"
        "On CUDA a step is one recording, as in training. --profile times one more step launch by launch:\n"
        "a trace for Perfetto (ui.perfetto.dev) or Chrome, and tables on standard error.",
    .examples =
        "deeper bench step --model=googlenet --batch=32\n"
        "deeper bench step --model=googlenet --batch=32 --precision=bf16 --threads=1\n"
        "deeper bench step --model=googlenet --batch=256 --precision=bf16 --device=cuda --profile=step.json",
};

// Milliseconds. The parts are known where they do not run as one recording.
struct StepTimes {
  double step = 0;
  double forward = 0, backward = 0, update = 0;
};

double MedianOf(const std::vector<StepTimes>& times, double StepTimes::*part) {
  std::vector<double> values;
  for (const StepTimes& t : times) values.push_back(t.*part);
  return Median(std::move(values));
}

class BenchStepCommand final : public Command {
 public:
  BenchStepCommand() : Command(kText) {
    config_.num_classes = 1000;
    config_.synthetic = true;
    config_.momentum = 0.9;
  }

  std::vector<FlagGroup> Flags() override {
    return {With(ModelFlags(config_), {{"aux", &config_.aux, "auxiliary classifiers of the GoogLeNets"},
                                       {"dropout", &config_.dropout, "false: leaves it out"}}),
            With(MachineFlags(config_),
                 {{"deterministic", &config_.deterministic,
                   "cuda: true: library calls as for a run that can be repeated bit by bit | false: the "
                   "fastest"}}),
            {"Measuring",
             {{"batch", &batch_, "images a step"},
              {"warmup", &warmup_, "steps before the first that is timed"},
              {"repeats", &repeats_, "steps that are timed"},
              {"lr", &config_.lr, "learning rate"},
              {"seed", &config_.seed, "of weights and images"},
              {"trace", &trace_, "file for a timeline of the steps that are timed, which Perfetto opens"},
              {"profile", &profile_, "cuda: file to write the trace of a step to"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (batch_ < 1 || warmup_ < 2 || repeats_ < 1)
      return absl::InvalidArgumentError("--batch and --repeats must be at least 1, --warmup at least 2");
    if (!profile_.empty() && config_.device != DeviceType::kCuda)
      return absl::InvalidArgumentError("--profile needs --device=cuda: it times launches on a GPU");
    config_.synthetic_samples = batch_;
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> made, MakeDeviceFor(config_, call.comm));
    Device& device = *made;
    ASSIGN_OR_RETURN(const std::unique_ptr<Dataset> images,
                     OpenDataset(config_, "", config_.train_split, call.comm));
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, images->info(), /*training=*/true));
    ASSIGN_OR_RETURN(
        std::unique_ptr<Network> net,
        Network::Prepare(model, {batch_, config_.precision, /*training=*/true, FusionOf(config_)}, device));
    ASSIGN_OR_RETURN(std::unique_ptr<ParamStore> params,
                     ParamStore::Create(net->Params(), device, /*training=*/true, net->wants_narrow_params(),
                                        {OptimizerState("sgd")}));
    params->Initialize(config_.seed);
    RETURN_IF_ERROR(net->Bind(*params));
    LoaderOptions input;
    net->Configure(input);
    input.global_batch = batch_;
    input.epochs = 1;
    ASSIGN_OR_RETURN(const std::unique_ptr<Loader> loader, MakeLoader(*images, input));
    const absl::StatusOr<Batch> batch = loader->Next();  // the only one: it stays valid
    if (!batch.ok()) return batch.status();
    return Measure(*net, *params, *batch, device, call.comm);
  }

 private:
  absl::Status Measure(Network& net, ParamStore& params, const Batch& batch, Device& device,
                       Communicator& comm) {
    Optimizer optimizer({.momentum = static_cast<float>(config_.momentum)}, params, device);
    optimizer.BeginStep(static_cast<float>(config_.lr));
    const std::unique_ptr<Recording> recording = device.MakeRecording();
    const auto step = [&] { return Step(net, optimizer, *recording, device, batch); };
    std::vector<double> losses;
    for (int i = 0; i < warmup_; ++i) {
      step();
      losses.push_back(net.results().front().loss_sum / static_cast<double>(batch_));
    }
    if (!std::isfinite(losses.back()) || losses.back() >= losses.front()) {
      return absl::InternalError(absl::StrCat("the loss went from ", losses.front(), " to ", losses.back(),
                                              " over the warm-up: the step is wrong, or --lr too large"));
    }
    TraceLane("compute");
    if (!trace_.empty()) StartTrace();
    std::vector<StepTimes> times;
    for (int i = 0; i < repeats_; ++i) {
      if (Tracing()) TraceBegin(TraceLevel::kStep, absl::StrCat("step ", warmup_ + i + 1));
      times.push_back(step());
    }
    if (!trace_.empty()) {
      RETURN_IF_ERROR(WriteTrace(trace_, StopTrace(), comm));
    }
    Print(net, params, device, times, losses);
    return profile_.empty() ? absl::OkStatus() : Profile(net, optimizer, device, batch);
  }

  StepTimes Step(Network& net, Optimizer& optimizer, Recording& recording, Device& device,
                 const Batch& batch) {
    const auto timed = [&](const char* name, const auto& work) {
      TraceBegin(TraceLevel::kPhase, name);
      const auto start = std::chrono::steady_clock::now();
      work();
      device.Synchronize();
      return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    };
    net.Load(batch, config_.seed);
    device.Synchronize();
    StepTimes times;
    if (device.type() == DeviceType::kCuda) {
      times.step = timed("step", [&] { recording.Run([&] { Enqueue(net, optimizer); }); });
      return times;
    }
    times.forward = timed("forward", [&] { net.Forward(); });
    times.backward = timed("backward", [&] { net.Backward([](size_t) {}); });
    times.update = timed("update", [&] { optimizer.Step(); });
    times.step = times.forward + times.backward + times.update;
    return times;
  }

  static void Enqueue(Network& net, Optimizer& optimizer) {
    net.Forward();
    net.Backward([](size_t) {});
    optimizer.Step();
  }

  // One step, call by call: small launches may have waited for the host, which in a recording they do not.
  absl::Status Profile(Network& net, Optimizer& optimizer, Device& device, const Batch& batch) {
    net.Load(batch, config_.seed);
    device.Synchronize();
    device.StartProfile();
    Enqueue(net, optimizer);
    const std::vector<ProfiledLaunch> profile = device.StopProfile();
    std::fputs(ProfileText(profile, GpuOf(device.Describe()), config_.precision).c_str(), stderr);
    return WriteFileAtomically(profile_, TraceJson(profile));
  }

  void Print(const Network& net, const ParamStore& params, const Device& device,
             const std::vector<StepTimes>& times, const std::vector<double>& losses) const {
    const bool cuda = device.type() == DeviceType::kCuda;
    const double step_ms = MedianOf(times, &StepTimes::step);
    nlohmann::ordered_json json = {{"benchmark", "step"},
                                   {"images_per_second", 1000 * static_cast<double>(batch_) / step_ms},
                                   {"step_ms", step_ms}};
    if (!cuda) {
      json["forward_ms"] = MedianOf(times, &StepTimes::forward);
      json["backward_ms"] = MedianOf(times, &StepTimes::backward);
      json["update_ms"] = MedianOf(times, &StepTimes::update);
    }
    json["arena_bytes"] = net.arena_bytes();
    if (cuda) json["peak_device_bytes"] = net.arena_bytes() + params.bytes();  // allocated before the steps
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    json["peak_rss_bytes"] = int64_t{usage.ru_maxrss} * 1024;
    json["warmup_losses"] = losses;
    json["settings"] = Settings(net.model());
    json["hardware"] = device.Describe();
    json["versions"] = {{"deeper", DEEPER_VERSION}, {"compiler", __VERSION__}};
    std::printf("%s\n", json.dump(2).c_str());
  }

  nlohmann::ordered_json Settings(const Model& model) const {
    nlohmann::ordered_json settings = {{"model", model.name},
                                       {"stem", NameOf(config_.stem)},
                                       {"image_size", model.image_size},
                                       {"channels", model.channels},
                                       {"num_classes", model.num_classes},
                                       {"aux", model.heads.size() > 1},
                                       {"dropout", config_.dropout},
                                       {"device", NameOf(config_.device)},
                                       {"precision", NameOf(config_.precision)},
                                       {"batch", batch_},
                                       {"warmup", warmup_},
                                       {"repeats", repeats_}};
    if (config_.device == DeviceType::kCuda) {
      settings["fusion"] = NameOf(config_.fusion);
      settings["cuda_graph"] = config_.cuda_graph;
      settings["deterministic"] = NameOf(config_.deterministic);
    }
    return settings;
  }

  RunConfig config_;
  int warmup_ = 5, repeats_ = 10;
  int64_t batch_ = 32;
  std::string trace_, profile_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchStep() {
  return std::make_unique<BenchStepCommand>();
}

}  // namespace deeper
