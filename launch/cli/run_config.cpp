#include "launch/cli/run_config.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <latch>
#include <thread>

#include "comm/agree.h"
#include "comm/node_places.h"
#include "kernels/base/check.h"
#include "kernels/base/own_kernels.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// The default file for tuned plans. Empty if no cache directory can be written.
std::string DefaultPlanCache() {
  const auto of = [](const char* variable) {
    const char* const value = std::getenv(variable);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  std::filesystem::path directory = of("XDG_CACHE_HOME");
  if (directory.empty() && !of("HOME").empty()) directory = of("HOME") / ".cache";
  if (directory.empty()) return "";
  directory /= "deeper";
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  return access(directory.c_str(), W_OK) == 0 ? directory / "plans.json" : "";
}

// Starts as many threads as OpenMP will, which ends the process without advice if it cannot.
void CheckThreads(int threads) {
  std::latch all_run(threads);
  std::vector<std::jthread> started;
  for (int i = 1; i < threads; ++i) started.emplace_back([&] { all_run.arrive_and_wait(); });
  all_run.arrive_and_wait();
}

absl::StatusOr<std::unique_ptr<Device>> MakeGpu(const RunConfig& config, const Communicator& comm) {
  CudaOptions options;
  options.index = comm.local_rank();
  options.deterministic = config.deterministic != Determinism::kFalse;
  options.graphs = config.cuda_graph;
  options.early_starts = config.early_starts;
  options.plan_cache = config.plan_cache == "default" ? DefaultPlanCache() : config.plan_cache;
  return MakeCudaDevice(options, {config.own_kernels, std::chrono::seconds(config.trial_seconds)});
}

absl::Status CheckPrecision(const RunConfig& config, const Device& device) {
  if (config.precision != DType::kBf16 || device.bf16_support() != Bf16Support::kNone)
    return absl::OkStatus();
  return InvalidArgument(
      "--precision=bf16: ", device.Describe(),
      ", does not support it, because oneDNN needs AVX-512; use --precision=fp32, or auto");
}

}  // namespace

FlagGroup Pick(RunConfig& config, const char* title, const std::vector<std::string_view>& names) {
  std::vector<Flag> all;
  for (const FlagGroup& group : ConfigFlags(config))
    all.insert(all.end(), group.flags.begin(), group.flags.end());
  FlagGroup picked = {title, {}};
  for (const std::string_view name : names) {
    const auto flag = std::find_if(all.begin(), all.end(), [&](const Flag& f) { return f.name == name; });
    DEEPER_CHECK(flag != all.end(), std::string(name));
    picked.flags.push_back(*flag);
  }
  return picked;
}

FlagGroup ModelFlags(RunConfig& config) {
  return Pick(config, "Network", {"model", "num_classes", "image_size", "stem"});
}

FlagGroup PixelFlags(RunConfig& config) {
  return Pick(config, "Input", {"mean", "std", "val_preset", "workers"});
}

FlagGroup InputFlags(RunConfig& config) {
  return With(PixelFlags(config), Pick(config, "", {"stage_dir", "direct_io"}).flags);
}

FlagGroup MachineFlags(RunConfig& config) {
  return Pick(config, "Machine",
              {"device", "precision", "fusion", "own_kernels", "trial_seconds", "cuda_graph", "early_starts",
               "plan_cache", "threads", "cpu_layout"});
}

Flag CheckpointFlag(std::string& path) {
  return {"checkpoint", &path,
          "a checkpoint, or a directory of checkpoints, which stands for its newest valid one"};
}

FlagGroup With(FlagGroup group, const std::vector<Flag>& more) {
  group.flags.insert(group.flags.end(), more.begin(), more.end());
  return group;
}

absl::StatusOr<std::unique_ptr<Device>> MakeDeviceFor(RunConfig& config, Communicator& comm) {
  std::unique_ptr<Device> device;
  if (config.device == DeviceType::kCuda) {
    ASSIGN_OR_RETURN(device, Agree(comm, MakeGpu(config, comm)));
    // The host compares the results of kernels on trial. OpenMP would use all cores of the machine per rank.
    omp_set_num_threads(std::min(omp_get_max_threads(), OwnCores(comm)));
  } else {
    const int cores = OwnCores(comm);
    const int threads = config.threads > 0 ? config.threads : cores;
    CheckThreads(threads);
    device = MakeCpuDevice(threads, config.cpu_layout);
  }
  ChoosePrecision(*device, comm, config);
  RETURN_IF_ERROR(Agree(comm, CheckPrecision(config, *device)));
  const std::string warning = PrecisionWarning(*device, config);
  if (!warning.empty() && comm.rank() == 0) std::fprintf(stderr, "deeper: warning: %s\n", warning.c_str());
  return device;
}

}  // namespace deeper
