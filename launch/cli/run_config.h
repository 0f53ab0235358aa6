// What the commands share that run a network: rows of ConfigFlags, and the device to compute on.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/run/config.h"

namespace deeper {

// The flags of these names, which exist, in this order.
FlagGroup Pick(RunConfig& config, const char* title, const std::vector<std::string_view>& names);

// --model, --num_classes, --image_size, --stem.
FlagGroup ModelFlags(RunConfig& config);
// --mean, --std, --val_preset, --workers, --stage_dir, --direct_io.
FlagGroup InputFlags(RunConfig& config);
// --device, --precision, --fusion, --cuda_graph, --plan_cache, --threads.
FlagGroup MachineFlags(RunConfig& config);
// --checkpoint, of the commands that read one.
Flag CheckpointFlag(std::string& path);

// `group` with more flags after its own.
FlagGroup With(FlagGroup group, const std::vector<Flag>& more);

// Collective; config.device says which kind.
//   cpu   with config.threads threads, or, if that is 0, one for each of OwnCores().
//   cuda  the GPU of this rank's number on its machine, counted round where there are more ranks than GPUs,
//         and the cores next to that GPU.
// Errors are those of MakeCudaDevice, the same on all ranks.
absl::StatusOr<std::unique_ptr<Device>> MakeDeviceFor(const RunConfig& config, Communicator& comm);

}  // namespace deeper
