// The flags that several commands share, bound to the fields of a RunConfig.
#pragma once

#include "launch/cli/flags.h"
#include "trainer/run/config.h"

namespace deeper {

// --model, --num_classes, --image_size, --stem.
FlagGroup ModelFlags(RunConfig& config);
// --mean, --std, --workers, --stage_dir.
FlagGroup InputFlags(RunConfig& config);
// --device, --precision, --threads.
FlagGroup MachineFlags(RunConfig& config);

// --watchdog_seconds, of the commands that run on several ranks.
Flag WatchdogFlag(RunConfig& config);

// `group` with more flags after its own.
FlagGroup With(FlagGroup group, std::vector<Flag> more);

}  // namespace deeper
