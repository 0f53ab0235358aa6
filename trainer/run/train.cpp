#include "trainer/run/train.h"

#include <memory>
#include <optional>

#include "comm/agree.h"
#include "kernels/base/status.h"
#include "trainer/run/stop.h"
#include "trainer/run/train_loop.h"
#include "trainer/run/train_setup.h"

namespace deeper {

absl::Status Train(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out) {
  RETURN_IF_ERROR(Agree(comm, Validate(config)));
  std::optional<StopSignals> signals;  // where nothing can be saved, they end the run as ever
  if (!config.checkpoint_dir.empty()) signals.emplace();
  ASSIGN_OR_RETURN(const std::unique_ptr<Watchdog> watchdog, StartWatchdog(config, comm));
  TrainSetup run(config, comm, device, out);
  RETURN_IF_ERROR(run.Prepare());
  return RunSteps(run);
}

}  // namespace deeper
