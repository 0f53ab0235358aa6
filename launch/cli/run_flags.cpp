#include "launch/cli/run_flags.h"

#include <algorithm>

#include "kernels/base/check.h"

namespace deeper {

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

FlagGroup InputFlags(RunConfig& config) {
  return Pick(config, "Input", {"mean", "std", "val_preset", "workers", "stage_dir", "direct_io"});
}

FlagGroup MachineFlags(RunConfig& config) {
  return Pick(config, "Machine", {"device", "precision", "fusion", "cuda_graph", "plan_cache", "threads"});
}

Flag WatchdogFlag(RunConfig& config) {
  return Pick(config, "", {"watchdog_seconds"}).flags[0];
}

Flag CheckpointFlag(std::string& path) {
  return {"checkpoint", &path, "step directory, or a directory of them: the newest valid one is taken"};
}

FlagGroup With(FlagGroup group, const std::vector<Flag>& more) {
  group.flags.insert(group.flags.end(), more.begin(), more.end());
  return group;
}

}  // namespace deeper
