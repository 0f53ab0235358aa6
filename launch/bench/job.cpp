#include "launch/bench/job.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/io/file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// The child's code when the program cannot be started; a shell's.
constexpr int kNotStarted = 127;

[[noreturn]] void Become(const std::vector<std::string>& line, int output, int errors) {
  std::vector<char*> arguments;
  for (const std::string& argument : line) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  dup2(output, STDOUT_FILENO);
  dup2(errors, STDERR_FILENO);
  execvp(arguments[0], arguments.data());
  _exit(kNotStarted);
}

std::string TextOf(int fd) {
  const absl::StatusOr<std::vector<uint8_t>> bytes = ReadFile(absl::StrCat("/proc/self/fd/", fd));
  return bytes.ok() ? std::string(bytes->begin(), bytes->end()) : "";
}

}  // namespace

absl::StatusOr<std::string> RunJob(const std::string& launcher, int ranks,
                                   const std::vector<std::string>& arguments) {
  std::vector<std::string> line = absl::StrSplit(launcher, ' ', absl::SkipEmpty());
  if (line.empty()) return InvalidArgument("--mpirun names no launcher");
  line.insert(line.end(),
              {"-n", absl::StrCat(ranks), std::filesystem::read_symlink("/proc/self/exe").string()});
  line.insert(line.end(), arguments.begin(), arguments.end());

  const int output = memfd_create("output", MFD_CLOEXEC), errors = memfd_create("errors", MFD_CLOEXEC);
  const absl::Cleanup close_both = [&] {
    close(output);
    close(errors);
  };
  const pid_t pid = output < 0 || errors < 0 ? -1 : fork();
  if (pid == 0) Become(line, output, errors);
  if (pid < 0) return Unavailable("cannot start ", line[0], ": ", std::strerror(errno));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  if (code == 0) return TextOf(output);
  const std::string text = TextOf(output) + TextOf(errors);
  if (code == kNotStarted && text.empty()) return NotFound("there is no program ", line[0]);
  const bool ours =
      code >= static_cast<int>(ExitCode::kUsage) && code <= static_cast<int>(ExitCode::kNotFinite);
  return WithExitCode(absl::UnknownError(absl::StrCat("exit code ", code, " from: ", absl::StrJoin(line, " "),
                                                      "\n", LastLines(text))),
                      ours ? static_cast<ExitCode>(code) : ExitCode::kCommunication);
}

std::string LastLines(const std::string& text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  constexpr ptrdiff_t kLines = 12;
  if (std::ssize(lines) > kLines) lines.erase(lines.begin(), lines.end() - kLines);
  return absl::StrJoin(lines, "\n");
}

}  // namespace deeper
