#include "trainer/run/train.h"

#include <memory>
#include <optional>

#include "comm/agree.h"
#include "trainer/run/stop.h"
#include "trainer/run/train_loop.h"
#include "trainer/run/train_setup.h"

namespace deeper {

absl::Status Train(const RunConfig& config, Communicator& comm, Device& device, std::FILE* out) {
  if (absl::Status status = Agree(comm, Validate(config)); !status.ok()) return status;
  std::optional<StopSignals> signals;  // where nothing can be saved, they end the run as ever
  if (!config.checkpoint_dir.empty()) signals.emplace();
  const absl::StatusOr<std::unique_ptr<Watchdog>> watchdog = StartWatchdog(config, comm);
  if (!watchdog.ok()) return watchdog.status();
  TrainSetup run(config, comm, device, out);
  if (absl::Status status = run.Prepare(); !status.ok()) return status;
  return RunSteps(run);
}

}  // namespace deeper
