#include "launch/bench/child_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

// The child's code when the program cannot be started; a shell's.
constexpr int kNotStarted = 127;

[[noreturn]] void Become(std::vector<char*> arguments, int output, int errors) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  dup2(output, STDOUT_FILENO);
  dup2(errors, STDERR_FILENO);
  execvp(arguments[0], arguments.data());
  _exit(kNotStarted);
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t bytes = read(fd, buffer, sizeof buffer);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return text;
    text.append(buffer, static_cast<size_t>(bytes));
  }
}

}  // namespace

absl::StatusOr<ChildResult> RunChild(const std::vector<std::string>& arguments) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  const int errors = memfd_create("standard error", MFD_CLOEXEC);
  int ends[2];
  if (errors < 0 || pipe2(ends, O_CLOEXEC) != 0)
    return absl::UnavailableError(absl::StrCat("no pipe: ", std::strerror(errno)));
  const pid_t pid = fork();
  if (pid == 0) Become(std::move(pointers), ends[1], errors);
  const int error = errno;
  close(ends[1]);
  ChildResult result;
  if (pid > 0) result.output = ReadAll(ends[0]);
  close(ends[0]);
  if (pid < 0) {
    close(errors);
    return absl::UnavailableError(absl::StrCat("cannot start ", arguments[0], ": ", std::strerror(error)));
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  lseek(errors, 0, SEEK_SET);
  result.errors = ReadAll(errors);
  close(errors);
  result.exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  if (result.exit_code == kNotStarted && result.output.empty() && result.errors.empty())
    return absl::NotFoundError(absl::StrCat("there is no program ", arguments[0]));
  return result;
}

}  // namespace deeper
