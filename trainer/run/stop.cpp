#include "trainer/run/stop.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <iterator>
#include <mutex>

namespace deeper {
namespace {

std::atomic<bool> stop_came = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler may use it

constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGINT, SIGHUP};
std::mutex mutex;  // of what follows
int objects = 0;
std::array<struct sigaction, std::size(kSignals)> before;

void OnSignal(int signal) {
  if (stop_came.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // takes effect when this returns
  }
  if (signal != SIGINT) return;  // somebody waits at the terminal
  constexpr char kText[] = "deeper: stopping with a checkpoint after this step; once more to stop at once\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
}

// nohup, and shells for their background jobs, start programs with these ignored, and they stay so.
bool StaysIgnored(int signal, const struct sigaction& old) {
  return (signal == SIGHUP || signal == SIGINT) && old.sa_handler == SIG_IGN;
}

}  // namespace

StopSignals::StopSignals() {
  std::scoped_lock lock(mutex);
  if (objects++ > 0) return;
  struct sigaction action {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  for (const int signal : kSignals) sigaddset(&action.sa_mask, signal);
  for (size_t i = 0; i < before.size(); ++i) {
    sigaction(kSignals[i], nullptr, &before[i]);
    if (!StaysIgnored(kSignals[i], before[i])) sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  std::scoped_lock lock(mutex);
  if (--objects > 0) return;
  for (size_t i = 0; i < before.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
  stop_came = false;
}

bool StopSignals::came() {
  return stop_came;
}

Wish StrongestWish(Wish mine, Communicator& comm) {
  auto strongest = static_cast<int64_t>(mine);
  comm.AllReduce(&strongest, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
  return static_cast<Wish>(strongest);
}

}  // namespace deeper
