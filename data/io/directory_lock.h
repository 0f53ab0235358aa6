// Exclusive use of a directory, also between machines that share its file system.
//
// The owner holds a byte-range lock on the file .deeper-lock in it. NFS, Lustre and GPFS pass such locks
// between machines, unlike flock(2) of a directory, and release them when their holder dies. Some mounts have
// no locks, or keep them to one machine. So the owner also writes its name into the file, with a number that
// it increases every few seconds. Another machine that gets the byte-range lock nevertheless watches that
// number. It compares no clocks. After an outage of its server, the owner opens the file anew, because the
// server may have dropped the lock and the client may refuse the old descriptor.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace deeper {

struct LockOptions {
  double beat_seconds = 5;       // between two increases of the owner's number
  double patience_seconds = 30;  // an owner on another machine without an increase for so long is dead
  std::string machine = {};      // for tests: the name of this machine; empty: that of its kernel
  bool byte_range = true;        // for tests: false: as on a mount without locks
};

class DirectoryLock {
 public:
  DirectoryLock();  // of no directory
  DirectoryLock(DirectoryLock&&) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) noexcept;
  ~DirectoryLock();  // releases it

  // FailedPrecondition, naming the owner: another process has it. May wait for `patience_seconds`.
  static absl::StatusOr<DirectoryLock> Take(const std::string& directory, const LockOptions& options = {});

  // Aborted, naming the new owner: another machine has taken it over, because this process stood still or
  // could not reach the file system for too long. The directory must not be changed any more.
  absl::Status Check() const;
  // A sentence about an owner that died without releasing it; empty if there was none.
  const std::string& note() const;

 private:
  class Holding;
  explicit DirectoryLock(std::unique_ptr<Holding> holding);
  std::unique_ptr<Holding> holding_;
};

}  // namespace deeper
