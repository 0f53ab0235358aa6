#include "launch/cli/process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <system_error>

namespace deeper {
namespace {

void (*end_job_with)(const std::string& report);

constexpr rlim_t kMostFiles = 65536;  // some programs close all possible descriptors, one by one

std::string DescribeException() {
  try {
    if (const std::exception_ptr exception = std::current_exception()) std::rethrow_exception(exception);
    return "internal error: std::terminate was called";
  } catch (const std::bad_alloc&) {
    return "out of memory: the machine, the container or `ulimit -v` allows no more; use a smaller batch, "
           "fewer --workers or --jobs, or fewer ranks per machine";
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again)
      return std::string("internal error: ") + error.what();
    return "cannot start a thread: raise the limit of processes (`ulimit -u`, or that of the container) "
           "or of memory (`ulimit -v`), or use fewer --threads, --workers or --jobs";
  } catch (const std::exception& error) {
    return std::string("internal error: ") + error.what();
  }
}

struct sigaction hangup_at_start;

void RecordHangup() {
  sigaction(SIGHUP, nullptr, &hangup_at_start);
}

// Functions of this section run before the initialisation of all shared libraries.
[[gnu::section(".preinit_array"), gnu::used]] void (*const record_hangup)() = RecordHangup;

void OnTerminate() {
  static std::atomic<bool> called = false;
  if (called.exchange(true)) {  // by another thread, or while the message was made
    constexpr char kText[] = "deeper: too little memory or too few threads to report an error\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof kText - 1);
    _exit(1);
  }
  end_job_with(DescribeException());
}

}  // namespace

void RestoreHangup() {
  sigaction(SIGHUP, &hangup_at_start, nullptr);
}

void PrepareProcess(void (*end_job)(const std::string& report)) {
  end_job_with = end_job;
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    // The lowest free number is `fd`. The direction is wrong on purpose.
    if (fcntl(fd, F_GETFD) < 0) open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = std::max(files.rlim_cur, std::min(files.rlim_max, kMostFiles));
    setrlimit(RLIMIT_NOFILE, &files);
  }
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  RestoreHangup();
  std::set_terminate(OnTerminate);
}

}  // namespace deeper
