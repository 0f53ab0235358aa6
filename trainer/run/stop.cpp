#include "trainer/run/stop.h"

#include <unistd.h>

#include <array>
#include <csignal>
#include <iterator>

namespace deeper {
namespace {

volatile std::sig_atomic_t stop_came = 0;

constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGINT, SIGHUP};
std::array<struct sigaction, std::size(kSignals)> before;

void OnSignal(int signal) {
  if (stop_came != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // takes effect when this returns
  }
  stop_came = 1;
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
  for (size_t i = 0; i < before.size(); ++i) sigaction(kSignals[i], &before[i], nullptr);
  stop_came = 0;
}

bool StopSignals::came() {
  return stop_came != 0;
}

Wish StrongestWish(Wish mine, Communicator& comm) {
  auto strongest = static_cast<int64_t>(mine);
  comm.AllReduce(&strongest, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
  return static_cast<Wish>(strongest);
}

}  // namespace deeper
