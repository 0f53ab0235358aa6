#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/atomic_file.h"
#include "kernels/base/status.h"
#include "kernels/cpu/peak_rates.h"
#include "launch/bench/harness.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/monitor/step_profile.h"
#include "trainer/monitor/trace_file.h"
#include "trainer/scaling/gpu_spec.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench step",
    .summary = "times a training step on data in memory",
    .operands = "",
    .details = R"(Trains repeatedly on one batch of synthetic images: forward, backward and update, without
reading data and without other ranks. The loss must fall during the warm-up. Prints medians over the repeats
as JSON. On CUDA it times the step of training itself, with the upload of the next batch. With --profile it
times one more step launch by launch, and writes a trace for Perfetto (ui.perfetto.dev) or Chrome, and tables
to standard error: by kind of launch and by layer, beside the least time at the peak rates of the device. On a
CPU a launch is a oneDNN primitive or a pass of our own, and the peak rates are measured first.)",
    .examples = R"(deeper bench step --model=googlenet --batch=32
deeper bench step --model=googlenet --batch=32 --precision=bf16 --threads=1 --profile=step.json
deeper bench step --model=googlenet --batch=256 --precision=bf16 --device=cuda --profile=step.json)",
};

class BenchStepCommand final : public Command {
 public:
  BenchStepCommand() : Command(kText) { config_.num_classes = 1000; }

  std::vector<FlagGroup> Flags() override {
    return {
        With(ModelFlags(config_), {{"aux", &config_.aux, "auxiliary classifiers of the GoogLeNets"},
                                   {"dropout", &config_.dropout, "use dropout layers"}}),
        With(MachineFlags(config_), {{"deterministic", &config_.deterministic,
                                      "cuda: true: deterministic library calls; false: the fastest ones"}}),
        {"Measurements",
         {{"batch", &batch_, "images per step", Range(1, 1e6)},
          {"warmup", &warmup_, "untimed steps at the start", Range(2)},
          {"repeats", &repeats_, "timed steps", Range(1)},
          {"lr", &config_.lr, "learning rate"},
          {"seed", &config_.seed, "seed of weights and images"},
          {"trace", &trace_, "file for a timeline of the timed steps, which Perfetto opens"},
          {"profile", &profile_, "file for the trace of a step, launch by launch"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    BenchTraining training;
    RETURN_IF_ERROR(training.Prepare(config_, batch_, call.comm));
    config_ = training.config();
    std::vector<double> losses;
    for (int i = 0; i < warmup_; ++i) {
      RETURN_IF_ERROR(TimeStep(training));
      losses.push_back(training.net().results().front().loss_sum / static_cast<double>(batch_));
    }
    if (!std::isfinite(losses.back()) || losses.back() >= losses.front()) {
      return Internal("the loss went from ", losses.front(), " to ", losses.back(),
                      " over the warm-up: the step is wrong, or --lr is too large");
    }
    ms_.clear();
    TraceLane("compute");
    if (!trace_.empty()) StartTrace();
    for (int i = 0; i < repeats_; ++i) {
      if (Tracing()) TraceBegin(TraceLevel::kStep, absl::StrCat("step ", warmup_ + i + 1));
      RETURN_IF_ERROR(TimeStep(training));
    }
    if (!trace_.empty()) {
      RETURN_IF_ERROR(WriteTrace(trace_, StopTrace(), call.comm));
    }
    Print(training, losses);
    return profile_.empty() ? absl::OkStatus() : Profile(training);
  }

 private:
  // Adds to ms_. The parts of a step are timed only where a step is not one recording.
  absl::Status TimeStep(BenchTraining& training) {
    absl::Status status;
    Device& device = training.device();
    const auto timed = [&](const char* name, const auto& work) {
      TraceBegin(TraceLevel::kPhase, name);
      const double seconds = SecondsOf([&] {
        work();
        device.Synchronize();
      });
      return ms_[name].emplace_back(1e3 * seconds);
    };
    if (device.type() == DeviceType::kCuda) {  // as in training, with the upload of the next batch
      timed("step", [&] { status.Update(training.TrainingStep()); });
      return status;
    }
    training.Load();
    device.Synchronize();
    const double forward = timed("forward", [&] { training.net().Forward(); });
    const double backward = timed("backward", [&] { training.net().Backward([](size_t) {}); });
    const double update = timed("update", [&] { training.optimizer().Step(); });
    ms_["step"].push_back(forward + backward + update);
    return status;
  }

  // Times one step call by call. Small launches may wait for the host here, unlike in a recording.
  absl::Status Profile(BenchTraining& training) {
    Device& device = training.device();
    training.Load();
    device.Synchronize();
    device.StartProfile();
    training.StepUnrecorded();
    const std::vector<ProfiledLaunch> profile = device.StopProfile();
    std::optional<PeakRates> peak;
    if (device.type() == DeviceType::kCpu) {
      ASSIGN_OR_RETURN(peak, MeasureCpuPeak(device));
      std::fprintf(stderr, "peak rates measured: copy %.1f GB/s, fp32 %.0f GFLOP/s, bf16 %.0f GFLOP/s\n\n",
                   peak->bytes_per_second / 1e9, peak->fp32_flops / 1e9, peak->bf16_flops / 1e9);
    } else if (const GpuSpec* const gpu = GpuOf(device.Describe()); gpu != nullptr) {
      peak = gpu->peak();
    }
    std::fputs(ProfileText(profile, peak, config_.precision).c_str(), stderr);
    return WriteFileAtomically(profile_, TraceJson(profile));
  }

  void Print(BenchTraining& training, const std::vector<double>& losses) const {
    const double step_ms = Median(ms_.at("step"));
    nlohmann::ordered_json json = {{"benchmark", "step"},
                                   {"images_per_second", 1000 * static_cast<double>(batch_) / step_ms},
                                   {"step_ms", step_ms}};
    for (const char* part : {"forward", "backward", "update"})
      if (ms_.contains(part)) json[absl::StrCat(part, "_ms")] = Median(ms_.at(part));
    const size_t arena_bytes = training.net().arena_bytes();
    json["arena_bytes"] = arena_bytes;
    if (training.device().type() == DeviceType::kCuda)
      json["peak_device_bytes"] = arena_bytes + training.params().bytes();  // allocated before the steps
    rusage usage = {};
    getrusage(RUSAGE_SELF, &usage);
    json["peak_rss_bytes"] = int64_t{usage.ru_maxrss} * 1024;
    json["warmup_losses"] = losses;
    const Model& model = training.net().model();
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
    if (config_.device == DeviceType::kCpu) settings["cpu_layout"] = NameOf(config_.cpu_layout);
    if (config_.device == DeviceType::kCuda) {
      settings["fusion"] = NameOf(config_.fusion);
      settings["cuda_graph"] = config_.cuda_graph;
      settings["early_starts"] = config_.early_starts;
      settings["deterministic"] = NameOf(config_.deterministic);
    }
    PrintBenchmark(std::move(json), std::move(settings), training.device().Describe());
  }

  RunConfig config_;
  int warmup_ = 5, repeats_ = 10;
  int64_t batch_ = 32;
  std::string trace_, profile_;
  std::map<std::string, std::vector<double>> ms_;  // by part of a step
};

}  // namespace

std::unique_ptr<Command> MakeBenchStep() {
  return std::make_unique<BenchStepCommand>();
}

}  // namespace deeper
