// Flags and device of the commands that run a network.
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

// The flags with these names, in this order. Each must exist.
FlagGroup Pick(RunConfig& config, const char* title, const std::vector<std::string_view>& names);

// --model, --num_classes, --image_size, --stem.
FlagGroup ModelFlags(RunConfig& config);
// --mean, --std, --val_preset, --workers.
FlagGroup PixelFlags(RunConfig& config);
// Those, --stage_dir and --direct_io: for packed data.
FlagGroup InputFlags(RunConfig& config);
// --device, --precision, --fusion, --own_kernels, --trial_seconds, --cuda_graph, --plan_cache, --threads,
// --cpu_layout.
FlagGroup MachineFlags(RunConfig& config);
// --checkpoint, for commands that read a checkpoint.
Flag CheckpointFlag(std::string& path);

// `group` with more flags after its own.
FlagGroup With(FlagGroup group, const std::vector<Flag>& more);

// Collective. config.device selects the kind:
//   cpu   config.threads threads, or OwnCores() threads if that is 0.
//   cuda  the GPU whose number is the rank's number on its machine, modulo the number of GPUs, and the cores
//         next to that GPU, with OwnCores() threads at most for parallel loops of the host.
// Replaces config.precision if it is auto, and warns on rank 0 about a precision that the device emulates.
// Errors, the same on all ranks, are those of MakeCudaDevice, and InvalidArgument for a precision that a
// device does not support.
absl::StatusOr<std::unique_ptr<Device>> MakeDeviceFor(RunConfig& config, Communicator& comm);

}  // namespace deeper
