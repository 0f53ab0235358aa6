#include "trainer/run/stop.h"

#include <csignal>

namespace deeper {
namespace {

volatile std::sig_atomic_t stop_came = 0;

constexpr int kSignals[] = {SIGTERM, SIGUSR1};

void OnSignal(int signal) {
  if (stop_came != 0) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // takes effect when this returns
  }
  stop_came = 1;
}

void Handle(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (const int signal : kSignals) sigaddset(&action.sa_mask, signal);
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals() {
  Handle(OnSignal);
}

StopSignals::~StopSignals() {
  Handle(SIG_DFL);
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
