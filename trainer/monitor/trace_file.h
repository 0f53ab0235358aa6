// The timeline of some steps of a job, all ranks on one clock, in the trace event format that Perfetto
// (ui.perfetto.dev) and Chrome read: docs/reference/formats.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "kernels/base/trace.h"

namespace deeper {

// Collective; errors are the same on all ranks. Rank 0 writes the events of all ranks and creates the
// directory of `path`. Barriers compare clocks: no rank leaves one before all have entered it, which bounds
// the offset of two clocks from both sides. The file states the uncertainty.
absl::Status WriteTrace(const std::string& path, std::vector<TraceEvent> events, Communicator& comm);

// Traces steps [first, first + steps) of a run, or fewer if the run ends earlier, and then writes them. A run
// that begins later traces as many steps from its beginning. Does nothing if `path` is empty.
class StepTrace {
 public:
  StepTrace(const std::string& path, int64_t first, int64_t steps, Communicator& comm)
      : path_(path), first_(first), steps_(steps), comm_(comm) {}

  void BeginStep(int64_t step);
  // Collective at the end of the last traced step; `last`: the run ends. Returns true if it wrote the file.
  absl::StatusOr<bool> EndStep(int64_t step, bool last);

 private:
  const std::string path_;
  int64_t first_;
  const int64_t steps_;
  Communicator& comm_;
  bool started_ = false, written_ = false;
};

}  // namespace deeper
