#include "kernels/base/jobs.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace deeper {

absl::Status RunJobs(int jobs, int64_t count, const std::function<absl::Status(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  int64_t failed = count;
  absl::Status error;
  const auto run = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      absl::Status status = work(i);
      if (status.ok()) continue;
      next = count;
      std::scoped_lock lock(mutex);
      if (i < failed) {
        failed = i;
        error = std::move(status);
      }
    }
  };
  if (jobs <= 0) jobs = static_cast<int>(std::thread::hardware_concurrency());
  std::vector<std::jthread> threads;
  for (int64_t t = 1; t < std::min<int64_t>(jobs, count); ++t) threads.emplace_back(run);
  run();
  threads.clear();
  return error;
}

}  // namespace deeper
