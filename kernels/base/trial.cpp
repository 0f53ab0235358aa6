#include "kernels/base/trial.h"

#include <condition_variable>
#include <mutex>
#include <utility>

#include "kernels/base/check.h"

namespace deeper {

Trial::Trial(std::string what, std::chrono::milliseconds limit) : what_(std::move(what)) {
  SetCheckContext(&what_);
  timer_ = std::jthread([this, limit](const std::stop_token& stop) {
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any stopped;
    if (stopped.wait_for(lock, stop, limit, [&] { return stop.stop_requested(); })) return;
    SetCheckContext(&what_);  // of this thread
    CheckFailed(__FILE__, __LINE__, "work on trial ends",
                "it did not within " + std::to_string(limit.count()) + " ms");
  });
}

Trial::~Trial() {
  SetCheckContext(nullptr);
}

}  // namespace deeper
