#include "data/io/directory_lock.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/data/scratch.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// On a mount that keeps byte-range locks to one machine, or has none.
LockOptions OnMachine(const std::string& name, double patience_seconds) {
  return {.beat_seconds = 0.02, .patience_seconds = patience_seconds, .machine = name, .byte_range = false};
}

// Takes the lock in another process, and kills that with SIGKILL. Returns its number.
pid_t KilledOwner(const std::string& directory, const LockOptions& options) {
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    const auto lock = DirectoryLock::Take(directory, options);
    const char answer = lock.ok() ? 'y' : 'n';
    if (write(ready[1], &answer, 1) == 1) pause();
    _exit(1);
  }
  char answer = 0;
  EXPECT_EQ(read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  EXPECT_EQ(kill(owner, SIGKILL), 0);
  EXPECT_EQ(waitpid(owner, nullptr, 0), owner);
  close(ready[0]), close(ready[1]);
  return owner;
}

TEST(DirectoryLock, IsExclusiveUntilReleased) {
  const ScratchDir dir;
  std::optional<absl::StatusOr<DirectoryLock>> first = DirectoryLock::Take(dir.path());
  ASSERT_TRUE(first->ok());
  const absl::Status second = DirectoryLock::Take(dir.path()).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(second), AllOf(HasSubstr("in use by another process"),
                                     HasSubstr(absl::StrCat("process ", getpid(), " on host "))));
  EXPECT_TRUE((*first)->Check().ok());
  first.reset();
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  const auto third = DirectoryLock::Take(dir.path());
  ASSERT_TRUE(third.ok());
  EXPECT_THAT(third->note(), IsEmpty());
}

// Two processes start at the same time: the second finds the lock before the first has written its name.
TEST(DirectoryLock, NamesAnOwnerThatWritesItsNameLater) {
  const ScratchDir dir;
  const int file = open((dir / ".deeper-lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  ASSERT_EQ(fcntl(file, F_OFD_SETLK, &whole), 0);
  std::thread owner([file] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    constexpr char kName[] = "host a\nprocess 17\njob 5\n";
    EXPECT_EQ(write(file, kName, sizeof kName - 1), static_cast<ssize_t>(sizeof kName - 1));
  });
  EXPECT_THAT(Message(DirectoryLock::Take(dir.path()).status()), HasSubstr("process 17 on host a, job 5"));
  owner.join();
  close(file);
}

TEST(DirectoryLock, ADeadOwnerOfThisMachineIsReplacedAtOnce) {
  const ScratchDir dir;
  const pid_t dead = KilledOwner(dir.path(), {});
  LockOptions endless;
  endless.patience_seconds = 1e9;
  const auto lock = DirectoryLock::Take(dir.path(), endless);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_THAT(lock->note(), HasSubstr(absl::StrCat("taken over from process ", dead, " on host ")));
}

TEST(DirectoryLock, ALivingOwnerOnAnotherMachineKeepsIt) {
  const ScratchDir dir;
  const auto owner = DirectoryLock::Take(dir.path(), OnMachine("a", 60));
  ASSERT_TRUE(owner.ok());
  // Clocks of machines differ: the times of the file mean nothing.
  const auto now = std::filesystem::file_time_type::clock::now();
  for (const auto skew : {-std::chrono::hours(24), std::chrono::hours(24)}) {
    std::filesystem::last_write_time(dir / ".deeper-lock", now + skew);
    const absl::Status other = DirectoryLock::Take(dir.path(), OnMachine("b", 60)).status();
    EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_TRUE(owner->Check().ok());
}

TEST(DirectoryLock, ADeadOwnerOnAnotherMachineIsReplacedAfterAWhile) {
  const ScratchDir dir;
  KilledOwner(dir.path(), OnMachine("a", 60));
  const auto tomorrow = std::filesystem::file_time_type::clock::now() + std::chrono::hours(24);
  std::filesystem::last_write_time(dir / ".deeper-lock", tomorrow);
  const auto lock = DirectoryLock::Take(dir.path(), OnMachine("b", 0.3));
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_THAT(lock->note(), HasSubstr("no sign of life for 0.3 s"));
  EXPECT_TRUE(lock->Check().ok());
}

TEST(DirectoryLock, AnOwnerThatStoodStillLearnsThatItWasReplaced) {
  const ScratchDir dir;
  LockOptions asleep = OnMachine("a", 60);
  asleep.beat_seconds = 1e6;
  auto stopped = DirectoryLock::Take(dir.path(), asleep);
  ASSERT_TRUE(stopped.ok());
  const auto other = DirectoryLock::Take(dir.path(), OnMachine("b", 0.1));
  ASSERT_TRUE(other.ok());
  const absl::Status lost = stopped->Check();
  EXPECT_EQ(lost.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(Message(lost), AllOf(HasSubstr(dir.path()), HasSubstr("taken over by another process")));
  stopped = DirectoryLock();  // releases nothing
  EXPECT_TRUE(other->Check().ok());
  EXPECT_TRUE(std::filesystem::exists(dir / ".deeper-lock"));
}

// As after an outage of a file server.
TEST(DirectoryLock, AnOwnerWhoseDescriptorIsRefusedOpensItAnew) {
  const ScratchDir dir;
  LockOptions options;
  options.beat_seconds = 0.02;
  const auto lock = DirectoryLock::Take(dir.path(), options);
  ASSERT_TRUE(lock.ok());
  const int none = open("/dev/null", O_RDONLY);
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry, gone) == dir / ".deeper-lock")
      dup2(none, std::atoi(entry.path().filename().c_str()));
  }
  close(none);
  const auto text = [&] { return ReadBytes(dir / ".deeper-lock"); };
  // The first change may come from a write that had begun before.
  for (int change = 0; change < 2; ++change) {
    const auto before = text();
    for (int i = 0; i < 6000 && text() == before; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_NE(text(), before);
  }
  // It also has the lock again.
  const absl::Status other = DirectoryLock::Take(dir.path()).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kFailedPrecondition);
}

TEST(DirectoryLock, SurvivesAnUnreadableOwner) {
  const ScratchDir dir;
  WriteBytes(dir / ".deeper-lock", {0, 255, '\n', ' ', '\n', 'x', ' ', 'y'});
  const auto lock = DirectoryLock::Take(dir.path(), OnMachine("b", 0.1));
  EXPECT_TRUE(lock.ok()) << lock.status();
}

}  // namespace
}  // namespace deeper
