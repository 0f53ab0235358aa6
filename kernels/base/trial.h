// Work that may fault or never end, such as the first run of a kernel.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace deeper {

// What this thread does, for its reports of failed checks; nullptr: nothing to add. The text must outlive its
// use.
void SetCheckContext(const std::string* what);

// While it exists, reports of checks that fail on this thread name `what`. If it exists for longer than
// `limit`, a check fails that names it, which ends the process.
class Trial {
 public:
  Trial(std::string what, std::chrono::milliseconds limit);
  ~Trial();
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

 private:
  const std::string what_;
  // Not the stop token of the thread: a wait for one returns false if the stop comes just before the wait.
  std::mutex mutex_;
  std::condition_variable ended_;
  bool has_ended_ = false;
  std::jthread timer_;
};

}  // namespace deeper
