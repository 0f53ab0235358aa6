#include "data/io/directory_lock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "data/io/file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr char kName[] = ".deeper-lock";
constexpr int kTries = 100;  // each is lost to an owner that removed the file in between

using Seconds = std::chrono::duration<double>;

enum class ByteRange : uint8_t { kHeld, kBusy, kUnsupported };

// Of the open file, so that other threads of this process that open it cannot release it.
ByteRange LockBytes(int fd) {
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (fcntl(fd, F_OFD_SETLK, &whole) == 0) return ByteRange::kHeld;
  return errno == EAGAIN || errno == EACCES ? ByteRange::kBusy : ByteRange::kUnsupported;
}

// The owner's lines "KEY VALUE".
using Owner = std::map<std::string, std::string>;

Owner Parse(const std::string& text) {
  Owner owner;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<std::string, std::string> entry = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    if (!entry.second.empty()) owner.insert(entry);
  }
  return owner;
}

std::string NameOf(Owner owner) {
  if (owner.empty()) return "its name is not known";
  return absl::StrCat("process ", owner["process"], " on host ", owner["host"],
                      owner["job"].empty() ? "" : absl::StrCat(", job ", owner["job"]));
}

absl::Status InUse(const std::string& directory, const Owner& owner) {
  return FailedPrecondition(directory, " is in use by another process (", NameOf(owner),
                            "); wait until it ends, or use another directory");
}

// Empty if there is none. Opens the file each time, because network file systems refresh their cache then.
std::string TextOf(const std::string& path) {
  const absl::StatusOr<std::vector<uint8_t>> bytes = ReadFile(path);
  return bytes.ok() ? std::string(bytes->begin(), bytes->end()) : "";
}

// The process that holds the lock writes its name after it has taken it, at once unless the disk is busy.
Owner AwaitName(const std::string& path) {
  Owner owner;
  for (int i = 0; i < 200 && owner.empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    owner = Parse(TextOf(path));
  }
  return owner;
}

bool IsAt(int fd, const std::string& path) {
  struct stat open = {}, there = {};
  return fstat(fd, &open) == 0 && stat(path.c_str(), &there) == 0 && open.st_ino == there.st_ino &&
         open.st_dev == there.st_dev;
}

std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

// Byte-range locks exclude each other at least between processes of one kernel.
std::string KernelName() {
  const std::string boot = TextOf("/proc/sys/kernel/random/boot_id");
  return boot.empty() ? HostName() : std::string(absl::StripAsciiWhitespace(boot));
}

Owner ThisProcess(const LockOptions& options) {
  std::random_device random;
  Owner me = {{"machine", options.machine.empty() ? KernelName() : options.machine},
              {"host", HostName()},
              {"process", absl::StrCat(getpid())},
              {"token", absl::StrFormat("%08x%08x", random(), random())}};
  for (const char* variable : {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"})
    if (const char* const job = std::getenv(variable)) me.insert({"job", job});
  return me;
}

// Whether the file changes within the owner's time.
bool ShowsLife(const std::string& path, const std::string& text, const LockOptions& options) {
  const auto end = std::chrono::steady_clock::now() + Seconds(options.patience_seconds);
  while (std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(Seconds(options.beat_seconds / 5));
    if (TextOf(path) != text) return true;
  }
  return false;
}

}  // namespace

class DirectoryLock::Holding {
 public:
  Holding(File file, Owner me, double beat_seconds, std::string about_the_last)
      : note(std::move(about_the_last)),
        path_(file.path()),
        file_(std::move(file)),
        me_(std::move(me)),
        interval_(beat_seconds) {}

  ~Holding() {
    thread_ = {};
    if (IsMine() && IsAt(file_.fd(), path_)) unlink(path_.c_str());
  }

  absl::Status Begin() {
    if (ftruncate(file_.fd(), 0) != 0) return IoError("write", path_, errno);
    RETURN_IF_ERROR(Write(file_));
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
    return absl::OkStatus();
  }

  absl::Status Check() const {
    if (IsMine()) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat(
        std::string(absl::StripSuffix(path_, absl::StrCat("/", kName))),
        " was taken over by another process (", NameOf(Parse(TextOf(path_))),
        "), because this one stood still or could not reach the file system for too long; end one of them"));
  }

  const std::string note;

 private:
  // Also if the file cannot be read now: a write to the directory will report that.
  bool IsMine() const {
    const Owner owner = Parse(TextOf(path_));
    const auto token = owner.find("token");
    return token == owner.end() || token->second == me_.at("token");
  }

  absl::Status Write(const File& file) {
    std::string text;
    for (const auto& [key, value] : me_) absl::StrAppend(&text, key, " ", value, "\n");
    absl::StrAppendFormat(&text, "beat %012d\n", ++beats_);
    RETURN_IF_ERROR(file.WriteAt(0, text.data(), text.size()));
    return file.Sync();
  }

  absl::Status Beat() {
    if (Write(file_).ok()) return absl::OkStatus();
    ASSIGN_OR_RETURN(File file, File::Open(path_, O_RDWR));
    RETURN_IF_ERROR(Check());  // now that it can be read
    LockBytes(file.fd());      // if another process holds them meanwhile, it watches the number
    RETURN_IF_ERROR(Write(file));
    file_ = std::move(file);
    return absl::OkStatus();
  }

  void Run(const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    while (!wake.wait_for(lock, stop, interval_, [&] { return stop.stop_requested(); }))
      if (IsMine()) Beat().IgnoreError();  // others notice a missing one
  }

  const std::string path_;
  File file_;  // used by one thread at a time: Begin's caller, Run, the destructor
  const Owner me_;
  const Seconds interval_;
  int64_t beats_ = 0;
  std::jthread thread_;
};

DirectoryLock::DirectoryLock() = default;
DirectoryLock::DirectoryLock(DirectoryLock&&) noexcept = default;
DirectoryLock& DirectoryLock::operator=(DirectoryLock&&) noexcept = default;
DirectoryLock::~DirectoryLock() = default;
DirectoryLock::DirectoryLock(std::unique_ptr<Holding> holding) : holding_(std::move(holding)) {}

absl::StatusOr<DirectoryLock> DirectoryLock::Take(const std::string& directory, const LockOptions& options) {
  const std::string path = absl::StrCat(directory, "/", kName);
  const Owner me = ThisProcess(options);
  for (int i = 0; i < kTries; ++i) {
    ASSIGN_OR_RETURN(File file, File::Open(path, O_RDWR | O_CREAT));
    const ByteRange bytes = options.byte_range ? LockBytes(file.fd()) : ByteRange::kUnsupported;
    const std::string text = TextOf(path);
    Owner owner = Parse(text);
    if (bytes == ByteRange::kBusy) return InUse(directory, owner.empty() ? AwaitName(path) : owner);
    if (!IsAt(file.fd(), path)) continue;
    std::string note;
    if (!owner.empty()) {
      const bool known_dead = bytes == ByteRange::kHeld && owner["machine"] == me.at("machine");
      if (!known_dead && ShowsLife(path, text, options)) {
        if (TextOf(path).empty()) continue;  // it ended
        return InUse(directory, owner);
      }
      note = absl::StrCat(
          "taken over from ", NameOf(owner), ", which ended without releasing it",
          known_dead ? "" : absl::StrFormat(" or gave no sign of life for %g s", options.patience_seconds));
    }
    auto holding = std::make_unique<Holding>(std::move(file), me, options.beat_seconds, std::move(note));
    RETURN_IF_ERROR(holding->Begin());
    return DirectoryLock(std::move(holding));
  }
  return FailedPrecondition(directory, " is in use by changing processes; use another directory");
}

absl::Status DirectoryLock::Check() const {
  return holding_ == nullptr ? absl::OkStatus() : holding_->Check();
}

const std::string& DirectoryLock::note() const {
  static const std::string none;
  return holding_ == nullptr ? none : holding_->note;
}

}  // namespace deeper
