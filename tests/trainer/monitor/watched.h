// The input of monitors, for their tests.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/comm/threads_communicator.h"
#include "trainer/monitor/monitor.h"

namespace deeper {

class FakeLoader final : public Loader {
 public:
  absl::StatusOr<Batch> Next() override { return absl::OutOfRangeError("no batches"); }
  StageTimes times() const override { return stage_times; }
  int workers() const override { return worker_count; }
  std::map<int64_t, std::string> bad_samples() const override { return bad; }

  StageTimes stage_times{};
  int worker_count = 1;
  std::map<int64_t, std::string> bad;
};

// A monitor of one rank, or of one of several, and its events.
struct Watched {
  absl::Status Observe(const StepReport& report, bool is_logged = false) {
    return monitor->Observe({++step, report, is_logged}, events);
  }
  std::vector<std::string> Texts() const {
    std::vector<std::string> texts;
    for (const Event& event : events) texts.push_back(event.text);
    return texts;
  }

  std::unique_ptr<Monitor> monitor;
  int64_t step = 0;
  std::vector<Event> events = {};
};

}  // namespace deeper
