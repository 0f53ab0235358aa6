#include "launch/cli/placement.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "comm/agree.h"
#include "comm/node_places.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Where plans that were tuned once are kept for the next time, unless the flag says otherwise; empty where
// nothing can be kept.
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

absl::StatusOr<std::unique_ptr<Device>> MakeGpu(const RunConfig& config, const Communicator& comm) {
  CudaOptions options;
  options.index = comm.local_rank();
  options.deterministic = config.deterministic != Determinism::kFalse;
  options.graphs = config.cuda_graph;
  options.plan_cache = config.plan_cache == "default" ? DefaultPlanCache() : config.plan_cache;
  return MakeCudaDevice(options);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeDeviceFor(const RunConfig& config, Communicator& comm) {
  if (config.device == DeviceType::kCuda) {
    absl::StatusOr<std::unique_ptr<Device>> gpu = MakeGpu(config, comm);
    RETURN_IF_ERROR(Agree(comm, gpu.status()));
    return gpu;
  }
  const int cores = OwnCores(comm);
  return MakeCpuDevice(config.threads > 0 ? config.threads : cores);
}

}  // namespace deeper
