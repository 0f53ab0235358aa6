#include "comm/watchdog/watchdog.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/phase.h"
#include "comm/watchdog/lateness.h"
#include "comm/watchdog/peer_link.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr double kInterval = 0.25;     // seconds between two heartbeats
constexpr double kSigtermDelay = 0.5;  // seconds; mpirun sends SIGKILL one second after SIGTERM
constexpr double kFarewellTime = 2;    // seconds that rank 0 waits for the others' farewell
constexpr auto kAbortTime = std::chrono::seconds(3);

std::atomic<int> wake_on_sigterm{-1};  // the eventfd of the watchdog that delays SIGTERM
std::atomic<bool> sigterm_came{false};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void OnSigterm(int) {
  const int saved = errno;
  sigterm_came = true;
  if (const int fd = wake_on_sigterm; fd >= 0) eventfd_write(fd, 1);
  errno = saved;
}

// Where a rank runs.
struct Home {
  char host[60] = {};
  int32_t process = 0;
};

// Indexed by rank.
std::vector<Home> GatherHomes(Communicator& comm) {
  Home mine{.process = getpid()};
  gethostname(mine.host, sizeof mine.host - 1);
  std::vector<Home> homes(static_cast<size_t>(comm.size()));
  comm.AllGather(&mine, homes.data(), sizeof mine, {}).Wait();
  return homes;
}

// Seconds for which a rank lets lower ones report a fault. All ranks lose rank 0 at the same moment, and a
// launcher takes about a second to end them. Rank 2 reports as well, in case that rank 1 gets no core.
double Patience(int rank) {
  return rank <= 1 ? 0 : rank == 2 ? 0.5 : 2;
}

// Ends this process even if a library waits for a peer in its own abort.
void EndProcessLater() {
  std::thread([] {
    std::this_thread::sleep_for(kAbortTime);
    std::_Exit(kCommunicationExitCode);
  }).detach();
}

class StarWatchdog final : public Watchdog {
 public:
  StarWatchdog(Communicator& comm, WatchdogOptions options, std::vector<std::unique_ptr<PeerLink>> links,
               std::vector<Home> homes)
      : comm_(comm),
        options_(std::move(options)),
        wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        sigterm_in_(kSigtermDelay),
        homes_(std::move(homes)),
        links_(std::move(links)),
        ranks_(links_.size()) {
    DEEPER_CHECK(wake_ >= 0 && options_.deadline_seconds > 0);
    CarryPhaseBoard(&board_);
    if (options_.delay_sigterm) {
      wake_on_sigterm = wake_;
      std::signal(SIGTERM, OnSigterm);
    }
    thread_ = std::jthread([this](const std::stop_token& stop) { Watch(stop); });
  }

  ~StarWatchdog() override {
    thread_.request_stop();
    eventfd_write(wake_, 1);
    thread_.join();
    CarryPhaseBoard(nullptr);
    if (options_.delay_sigterm) {
      std::signal(SIGTERM, SIG_DFL);
      wake_on_sigterm = -1;
      if (sigterm_came) std::raise(SIGTERM);
    }
    close(wake_);
  }

 private:
  bool is_center() const { return comm_.rank() == 0; }

  // The functions from here to TakeLeave run on the watchdog's thread.
  void Watch(const std::stop_token& stop) {
    const double interval = std::min(kInterval, options_.deadline_seconds / 8);
    std::optional<Verdict> verdict;
    double last = Seconds(), since_beat = interval;
    while (!stop.stop_requested() && !verdict.has_value()) {
      Await(interval);
      const double now = Seconds();
      // After a longer time, this thread itself was stopped for most of it.
      const double passed = std::min(now - std::exchange(last, now), 4 * interval);
      PassTime(passed);
      Hear();
      since_beat += passed;
      if (since_beat >= interval) {
        Tell(PeerMessage::Kind::kBeat);
        since_beat = 0;
      }
      verdict = Judge(ranks_, options_.deadline_seconds);
      if (!verdict.has_value()) ObeySigterm(passed);
    }
    if (verdict.has_value()) {
      const Home& home = homes_[static_cast<size_t>(verdict->rank)];
      Report(absl::StrCat(Describe(*verdict, options_.deadline_seconds), " (rank ", verdict->rank,
                          ": process ", home.process, " on host ", home.host, ")"));
    }
    TakeLeave();
  }

  // Waits for news, but at most `seconds`. Messages alone do not wake this thread, which would keep rank 0
  // busy. They are read once per interval.
  void Await(double seconds) {
    std::vector<pollfd> waited{{wake_, POLLIN, 0}};
    for (size_t i = 0; i < links_.size(); ++i)
      if (links_[i] != nullptr) waited.push_back({links_[i]->fd(), POLLRDHUP, 0});
    poll(waited.data(), waited.size(), static_cast<int>(1e3 * seconds) + 1);
    eventfd_t count = 0;
    eventfd_read(wake_, &count);
  }

  void Hear() {
    for (size_t i = 0; i < links_.size(); ++i) {
      if (links_[i] == nullptr) continue;
      RankStatus& rank = ranks_[i];
      const bool open = links_[i]->Receive([&](const PeerMessage& message) {
        rank.silent = 0;
        rank.mark = message.mark;
        if (is_center()) rank.standing = message.standing;  // only rank 0 judges lateness
        if (message.kind == PeerMessage::Kind::kFarewell) rank.left = true;
        if (message.kind != PeerMessage::Kind::kVerdict) return;
        rank.left = true;
        if (!options_.on_failure) EndProcessLater();
      });
      if (open) continue;
      rank.gone = !rank.left;
      rank.error = links_[i]->error();
      links_[i].reset();
    }
  }

  void PassTime(double seconds) {
    for (RankStatus& rank : ranks_) rank.silent += seconds;
    const PhaseMark mark = board_.Read();
    mine_.standing = mark.marks == mine_.mark.marks ? mine_.standing + seconds : 0;
    mine_.mark = mark;
    if (is_center()) ranks_[0] = mine_;
  }

  void ObeySigterm(double seconds) {
    if (!options_.delay_sigterm || !sigterm_came) return;
    sigterm_in_ -= seconds;
    if (sigterm_in_ > 0) return;
    Tell(PeerMessage::Kind::kFarewell);
    std::signal(SIGTERM, SIG_DFL);
    std::raise(SIGTERM);
  }

  void Tell(PeerMessage::Kind kind) {
    const PeerMessage message = {
        .kind = kind, .rank = comm_.rank(), .standing = mine_.standing, .mark = mine_.mark};
    for (const auto& link : links_)
      if (link != nullptr) link->Send(message);
  }

  void Report(const std::string& reason) {
    Tell(PeerMessage::Kind::kVerdict);
    std::this_thread::sleep_for(std::chrono::duration<double>(Patience(comm_.rank())));
    if (options_.on_failure) return options_.on_failure(reason);
    EndProcessLater();
    comm_.Abort(kCommunicationExitCode, reason);
  }

  // Rank 0 closes its ends last: otherwise the others could miss its farewell.
  void TakeLeave() {
    Tell(PeerMessage::Kind::kFarewell);
    const double until = Seconds() + kFarewellTime;
    const auto linked = [](const auto& link) { return link != nullptr; };
    while (is_center() && std::any_of(links_.begin(), links_.end(), linked) && Seconds() < until) {
      Await(kInterval);
      Hear();
    }
  }

  Communicator& comm_;
  const WatchdogOptions options_;
  const int wake_;     // eventfd: wakes the thread
  double sigterm_in_;  // seconds until a received SIGTERM takes effect
  PhaseBoard board_;
  RankStatus mine_;
  const std::vector<Home> homes_;                 // [rank]
  std::vector<std::unique_ptr<PeerLink>> links_;  // [rank]; ranks other than 0 have only [0]
  std::vector<RankStatus> ranks_;                 // likewise
  std::jthread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Watchdog>> Watchdog::Start(Communicator& comm,
                                                          const WatchdogOptions& options) {
  ASSIGN_OR_RETURN(auto links, ConnectPeers(comm));
  return std::make_unique<StarWatchdog>(comm, options, std::move(links), GatherHomes(comm));
}

}  // namespace deeper
