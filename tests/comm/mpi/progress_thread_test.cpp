#include "comm/mpi/progress_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace deeper {
namespace {

// Complete after `count` calls of Advance; fails if two run at once.
class Countdown final : public ProgressThread::Operation {
 public:
  Countdown(int calls, std::atomic<bool>& busy) : left_(calls), busy_(busy) {}
  const char* name() const override { return "countdown"; }
  bool Advance() override {
    DEEPER_CHECK(!busy_.exchange(true), "two threads at once");
    std::this_thread::yield();
    busy_ = false;
    return --left_ == 0;
  }

 private:
  int left_;
  std::atomic<bool>& busy_;
};

Request StartCountdown(ProgressThread& progress, int calls, std::atomic<bool>& busy) {
  return progress.Start([&] { return std::make_unique<Countdown>(calls, busy); });
}

TEST(ProgressThread, AdvancesWhatNobodyWaitsFor) {
  std::atomic<bool> busy = false;
  ProgressThread progress;
  Request request = StartCountdown(progress, 50, busy);
  while (!request.Test()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(ProgressThread, SeveralCallersOneAtATime) {
  std::atomic<bool> busy = false;
  ProgressThread progress;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int i = 1; i < 100; ++i) {
        Request request = StartCountdown(progress, (caller * 37 + i) % 50 + 1, busy);
        request.Wait();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(ProgressThread, GoesOnAfterAWaitForOneOfTwo) {
  std::atomic<bool> busy = false;
  ProgressThread progress;
  Request slow = StartCountdown(progress, 100, busy), quick = StartCountdown(progress, 2, busy);
  quick.Wait();
  while (!slow.Test()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(ProgressThreadDeathTest, MustNotEndBeforeItsOperations) {
  EXPECT_DEATH(
      {
        std::atomic<bool> busy = false;
        auto progress = std::make_unique<ProgressThread>();
        Request request = StartCountdown(*progress, 1 << 30, busy);
        progress.reset();
      },
      "still in progress");
}

}  // namespace
}  // namespace deeper
