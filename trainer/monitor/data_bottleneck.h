// Says which stage of the way from the disk to the device keeps a run waiting, and what would help.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/load/loader.h"
#include "trainer/engine/train_step.h"

namespace deeper {

class DataBottleneck {
 public:
  struct Finding {
    std::string stage;  // read | decode | augment | upload
    std::string what;   // a sentence with figures and advice
  };

  // Looks at each `window` steps of a rank that has so many `cores`.
  DataBottleneck(int64_t window, int cores) : window_(window), cores_(cores) {}

  // After each step, with the loader's times so far. Once: after the first window of whose time the steps
  // waited for a tenth.
  std::optional<Finding> Observe(const StepReport& report, const StageTimes& times, int workers);

 private:
  const int64_t window_;
  const int cores_;
  int64_t seen_ = 0;
  double waited_ms_ = 0, upload_ms_ = 0, total_ms_ = 0;
  StageTimes before_{};  // the window
  bool found_ = false;
};

}  // namespace deeper
