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
#include <cstring>
#include <optional>
#include <span>
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

constexpr double kInterval = 0.25;      // seconds between two heartbeats
constexpr double kSigtermDelay = 0.5;   // seconds; mpirun sends SIGKILL one second after SIGTERM
constexpr double kFarewellTime = 2;     // seconds that a rank waits until its peers have read its farewell
constexpr double kHastyFarewell = 0.3;  // the same after SIGTERM
constexpr double kAbortTime = 3;        // seconds in which an abort must end this process

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

// The first rank on another host than rank 0, or -1.
int FirstElsewhere(std::span<const Home> homes) {
  for (size_t rank = 1; rank < homes.size(); ++rank)
    if (std::strcmp(homes[rank].host, homes[0].host) != 0) return static_cast<int>(rank);
  return -1;
}

std::vector<int> RanksBelow(const Communicator& comm) {
  std::vector<int> below;
  for (int rank = comm.rank() + 1; rank < comm.size(); ++rank)
    if (IsBelow(rank, comm.rank())) below.push_back(rank);
  return below;
}

// Ends this process kAbortTime after an abort that happens in `delay` seconds, even if a library waits for a
// peer in that abort.
void EndProcessLater(double delay) {
  std::thread([delay] {
    std::this_thread::sleep_for(std::chrono::duration<double>(delay + kAbortTime));
    std::_Exit(kCommunicationExitCode);
  }).detach();
}

class TreeWatchdog final : public Watchdog {
 public:
  TreeWatchdog(Communicator& comm, WatchdogOptions options, std::vector<Peer> peers, std::vector<Home> homes)
      : comm_(comm),
        options_(std::move(options)),
        wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
        sigterm_in_(kSigtermDelay),
        homes_(std::move(homes)),
        elsewhere_(FirstElsewhere(homes_)),
        below_(RanksBelow(comm)),
        peers_(std::move(peers)),
        ranks_(static_cast<size_t>(comm.size())) {
    DEEPER_CHECK(wake_ >= 0 && options_.deadline_seconds > 0);
    CarryPhaseBoard(&board_);
    if (options_.delay_sigterm) {
      wake_on_sigterm = wake_;
      std::signal(SIGTERM, OnSigterm);
    }
    thread_ = std::jthread([this](const std::stop_token& stop) { Watch(stop); });
  }

  ~TreeWatchdog() override {
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
  bool is_root() const { return comm_.rank() == 0; }
  RankStatus& StatusOf(int rank) { return ranks_[static_cast<size_t>(rank)]; }

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
      const bool lost = Hear();
      since_beat += passed;
      if (since_beat >= interval || lost) {
        TellStatus();
        since_beat = 0;
      }
      verdict = JudgeOthers();
      if (!verdict.has_value()) ObeySigterm(passed);
    }
    if (verdict.has_value()) {
      const Home& home = homes_[static_cast<size_t>(verdict->rank)];
      const bool hang = is_root() && verdict->kind != Verdict::Kind::kGone;
      Report(absl::StrCat(Describe(*verdict, options_.deadline_seconds), " (rank ", verdict->rank,
                          ": process ", home.process, " on host ", home.host, ")",
                          hang ? absl::StrCat(". All ranks: ", DescribeAll(ranks_)) : ""));
    }
    TakeLeave();
  }

  // Waits for news, but at most `seconds`. Messages alone do not wake this thread, which would keep it busy.
  // They are read once per interval.
  void Await(double seconds) {
    std::vector<pollfd> waited{{wake_, POLLIN, 0}};
    for (const Peer& peer : peers_)
      if (peer.link != nullptr) waited.push_back({peer.link->fd(), POLLRDHUP, 0});
    poll(waited.data(), waited.size(), static_cast<int>(1e3 * seconds) + 1);
    eventfd_t count = 0;
    eventfd_read(wake_, &count);
  }

  // Whether a peer was lost.
  bool Hear() {
    bool lost = false;
    for (Peer& peer : peers_) {
      if (peer.link == nullptr) continue;
      const bool open = peer.link->Receive([&](const PeerMessage& message) { HearFrom(peer.rank, message); });
      if (open) continue;
      RankStatus& rank = StatusOf(peer.rank);
      rank.gone = !rank.left;
      rank.error = peer.link->error();
      peer.link.reset();
      lost |= rank.gone;
    }
    return lost;
  }

  void HearFrom(int sender, const PeerMessage& message) {
    if (message.kind == PeerMessage::Kind::kBeat) StatusOf(message.rank) = message.status;
    StatusOf(sender).silent = 0;
    if (message.kind == PeerMessage::Kind::kFarewell) StatusOf(sender).left = true;
    if (message.kind != PeerMessage::Kind::kVerdict) return;
    StatusOf(sender).left = true;
    for (const Peer& peer : peers_)
      if (peer.link != nullptr && peer.rank > sender) peer.link->Send(message);
    if (!options_.on_failure) EndProcessLater(ReportDelay(message.rank, elsewhere_));
  }

  void PassTime(double seconds) {
    for (const Peer& peer : peers_) StatusOf(peer.rank).silent += seconds;
    RankStatus& mine = StatusOf(comm_.rank());
    const PhaseMark mark = board_.Read();
    mine.standing = mark.marks == mine.mark.marks ? mine.standing + seconds : 0;
    mine.mark = mark;
  }

  std::optional<Verdict> JudgeOthers() {
    if (is_root()) return Judge(ranks_, options_.deadline_seconds);
    const int parent = ParentOf(comm_.rank());
    RankStatus status = StatusOf(parent);
    status.standing = 0;  // only rank 0 judges lateness
    std::optional<Verdict> verdict = Judge({&status, 1}, options_.deadline_seconds);
    if (verdict.has_value()) verdict->rank = parent;
    return verdict;
  }

  bool MustObeySigterm() const { return options_.delay_sigterm && sigterm_came; }

  void ObeySigterm(double seconds) {
    if (!MustObeySigterm() || !std::exchange(sigterm_seen_, true)) return;  // `seconds` began before it came
    sigterm_in_ -= seconds;
    if (sigterm_in_ > 0) return;
    TakeLeave();
    std::signal(SIGTERM, SIG_DFL);
    std::raise(SIGTERM);
  }

  // The parent also learns about the ranks below.
  void TellStatus() {
    std::vector<PeerMessage> beats;
    const auto add = [&](int rank) {
      beats.push_back({.kind = PeerMessage::Kind::kBeat, .rank = rank, .status = StatusOf(rank)});
    };
    add(comm_.rank());
    for (const int rank : below_) add(rank);
    for (const Peer& peer : peers_) {
      if (peer.link != nullptr)
        peer.link->Send(std::span(beats).first(peer.rank < comm_.rank() ? beats.size() : 1));
    }
  }

  void Report(const std::string& reason) {
    for (const Peer& peer : peers_)
      if (peer.link != nullptr) peer.link->Send({.kind = PeerMessage::Kind::kVerdict, .rank = comm_.rank()});
    std::this_thread::sleep_for(std::chrono::duration<double>(ReportDelay(comm_.rank(), elsewhere_)));
    if (options_.on_failure) return options_.on_failure(reason);
    EndProcessLater(0);
    comm_.Abort(kCommunicationExitCode, reason);
  }

  // A peer closes its end after it has read the farewell. This rank reads until then: if it closed a
  // connection with unread messages, the system would reset it. A network that loses packets could deliver
  // the reset without the farewell.
  void TakeLeave() {
    for (const Peer& peer : peers_)
      if (peer.link != nullptr)
        peer.link->SendLast({.kind = PeerMessage::Kind::kFarewell, .rank = comm_.rank()});
    const auto connected = [](const Peer& peer) { return peer.link != nullptr; };
    const double start = Seconds();
    while (std::ranges::any_of(peers_, connected)) {
      const double left = start + (MustObeySigterm() ? kHastyFarewell : kFarewellTime) - Seconds();
      if (left <= 0) return;
      Await(std::min(kInterval, left));
      Hear();
    }
  }

  Communicator& comm_;
  const WatchdogOptions options_;
  const int wake_;     // eventfd: wakes the thread
  double sigterm_in_;  // seconds until a received SIGTERM takes effect
  bool sigterm_seen_ = false;
  PhaseBoard board_;
  const std::vector<Home> homes_;  // [rank]
  const int elsewhere_;            // see ReportDelay
  const std::vector<int> below_;
  std::vector<Peer> peers_;
  std::vector<RankStatus> ranks_;  // [rank]; of this rank, its parent and those below
  std::jthread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Watchdog>> Watchdog::Start(Communicator& comm,
                                                          const WatchdogOptions& options) {
  ASSIGN_OR_RETURN(std::vector<Peer> peers, ConnectPeers(comm));
  return std::make_unique<TreeWatchdog>(comm, options, std::move(peers), GatherHomes(comm));
}

}  // namespace deeper
