// Rows of ConfigFlags for the commands that take some of them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "launch/cli/flags.h"
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
// --watchdog_seconds, of the commands that run on several ranks.
Flag WatchdogFlag(RunConfig& config);
// --checkpoint, of the commands that read one.
Flag CheckpointFlag(std::string& path);

// `group` with more flags after its own.
FlagGroup With(FlagGroup group, const std::vector<Flag>& more);

}  // namespace deeper
