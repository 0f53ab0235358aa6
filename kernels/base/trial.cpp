#include "kernels/base/trial.h"

#include <utility>

#include "kernels/base/check.h"

namespace deeper {

Trial::Trial(std::string what, std::chrono::milliseconds limit) : what_(std::move(what)) {
  SetCheckContext(&what_);
  timer_ = std::jthread([this, limit] {
    std::unique_lock lock(mutex_);
    if (ended_.wait_for(lock, limit, [this] { return has_ended_; })) return;
    SetCheckContext(&what_);  // of this thread
    CheckFailed(__FILE__, __LINE__, "work on trial ends",
                "it did not within " + std::to_string(limit.count()) + " ms");
  });
}

Trial::~Trial() {
  SetCheckContext(nullptr);
  {
    std::scoped_lock lock(mutex_);
    has_ended_ = true;
  }
  ended_.notify_one();
}

}  // namespace deeper
