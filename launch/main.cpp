// deeper COMMAND [--flags]
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "comm/agree.h"
#include "comm/mpi/launcher.h"
#include "comm/mpi/mpi_communicator.h"
#include "data/io/file.h"
#include "kernels/base/check.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/input_output.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/process.h"
#include "launch/cli/version.h"

namespace deeper {

// The functions that make the commands, in the order of `deeper --help`.
#define DEEPER_COMMANDS                                                                                      \
  MakePack, MakeVerify, MakeDescribe, MakeDoctor, MakeTrain, MakeEval, MakePredict, MakeExport, MakeImport,  \
      MakeCheckpointList, MakeCheckpointDiff, MakeCheckpointReshard, MakeReport, MakeBenchStep, MakeBenchOp, \
      MakeBenchComm, MakeBenchLoader, MakeBenchCheckpoint, MakeBenchScaling

using MakeCommand = std::unique_ptr<Command>();
MakeCommand DEEPER_COMMANDS;  // declares each of them

namespace {

using Commands = std::vector<std::unique_ptr<Command>>;

Communicator* job = nullptr;  // for the abort handler, which is a plain function without arguments

absl::StatusOr<std::unique_ptr<Communicator>> MakeCommunicator() {
  if (!LaunchedByMpi()) return MakeSingleCommunicator();
  return WithExitCode(MakeMpiCommunicator(), ExitCode::kCommunication);
}

// The second words of the commands that begin with `word`: "list, diff, reshard". Empty if there are none.
std::string SubCommands(const Commands& commands, const std::string& word) {
  std::vector<std::string> names;
  for (const auto& command : commands) {
    absl::string_view name = command->text.name;
    if (absl::ConsumePrefix(&name, absl::StrCat(word, " "))) names.emplace_back(name);
  }
  return absl::StrJoin(names, ", ");
}

// Removes the command's name, of one or two words, from the front of `arguments`.
absl::StatusOr<Command*> TakeCommand(const Commands& commands, std::vector<std::string>& arguments) {
  std::vector<std::string> names;
  for (const auto& command : commands) {
    const std::string name = command->text.name;
    const auto words = 1 + std::count(name.begin(), name.end(), ' ');
    const bool fits = std::ssize(arguments) >= words;
    if (fits && name == (words == 1 ? arguments[0] : absl::StrCat(arguments[0], " ", arguments[1]))) {
      arguments.erase(arguments.begin(), arguments.begin() + words);
      return command.get();
    }
    names.push_back(name);
  }
  if (arguments[0].starts_with('-')) return InvalidArgument("the command comes before ", arguments[0]);
  const std::string sub_commands = SubCommands(commands, arguments[0]);
  if (sub_commands.empty())
    return InvalidArgument("there is no command ", arguments[0], DidYouMean(arguments[0], names));
  if (arguments.size() == 1 || arguments[1].starts_with('-'))
    return InvalidArgument(arguments[0], " needs a sub-command: ", sub_commands);
  const std::string both = absl::StrCat(arguments[0], " ", arguments[1]);
  return InvalidArgument("there is no command ", both, DidYouMean(both, names), "; the sub-commands of ",
                         arguments[0], " are ", sub_commands);
}

bool AsksForHelp(const std::vector<std::string>& arguments) {
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::any_of(arguments.begin(), end, [](const auto& a) { return a == "--help" || a == "-h"; });
}

// `deeper`, `deeper help [COMMAND]`, `deeper COMMAND --help`, `deeper --version`. False if `arguments` do not
// ask for help.
bool ShowHelp(const Commands& commands, std::vector<std::string> arguments, std::FILE* out) {
  const auto show = [&](const std::string& text) {
    if (out != nullptr) std::fputs(text.c_str(), out);
    return true;
  };
  const bool help = !arguments.empty() && arguments[0] == "help";
  if (help) arguments.erase(arguments.begin());
  if (help && arguments == std::vector<std::string>{"--markdown"}) return show(Markdown(commands));
  if (help && arguments == std::vector<std::string>{"exit-codes"}) return show(ExitCodesPage());
  if (help && arguments == std::vector<std::string>{"metrics"}) return show(MetricsPage());
  if (help && arguments == std::vector<std::string>{"man"}) return show(ManPage(commands));
  if (help && arguments == std::vector<std::string>{"completion"}) return show(BashCompletion(commands));
  if (arguments == std::vector<std::string>{"--version"}) return show(VersionLine() + "\n");
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h") return show(Overview(commands));
  if (!help && !AsksForHelp(arguments)) return false;
  const std::string first = arguments[0];
  const absl::StatusOr<Command*> command = TakeCommand(commands, arguments);
  if (command.ok()) return show(HelpOf(**command));
  return !SubCommands(commands, first).empty() && show(Overview(commands, first));
}

absl::Status Usage(const absl::Status& status, const std::string& command) {
  return InvalidArgument(status.message(), "; see `deeper ", command, "--help`");
}

// mpirun gives standard input to rank 0 only, and other pipes to no rank.
absl::Status CheckRanksCanRead(const std::vector<std::string>& arguments) {
  std::error_code unknown;  // parsing reports it
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::vector<std::string> parts = absl::StrSplit(arguments[i], absl::MaxSplits('=', 1));
    if (parts[0] != "--flagfile" && parts[0] != "-flagfile") continue;
    const std::string path = parts.size() == 2 ? parts[1] : i + 1 < arguments.size() ? arguments[i + 1] : "";
    if (!std::filesystem::exists(path, unknown) || std::filesystem::is_regular_file(path, unknown)) continue;
    return InvalidArgument("--flagfile=", path,
                           " is not a regular file, so only one rank can read it: write the flags to a file");
  }
  return absl::OkStatus();
}

absl::Status Execute(Command& command, const std::vector<std::string>& arguments, Communicator& comm) {
  if (command.text.distributed) RETURN_IF_ERROR(CheckLaunch(comm.size()));
  absl::StatusOr<std::vector<std::string>> operands = ParseFlags(arguments, command.Flags());
  if (operands.ok() && !operands->empty() && *command.text.operands == '\0')
    operands = InvalidArgument("unexpected argument ", operands->front());
  if (operands.ok() && comm.size() > 1 && !command.text.distributed)
    operands = InvalidArgument("runs as one process; leave out mpirun");
  if (operands.ok() && comm.size() > 1) {
    const absl::Status readable = CheckRanksCanRead(arguments);
    if (!readable.ok()) operands = readable;
  }
  operands = Agree(comm, std::move(operands));  // a flag file may exist on one host only
  if (!operands.ok()) return Usage(operands.status(), absl::StrCat(command.text.name, " "));
  return command.Run({*std::move(operands), comm});
}

// Shortens words of more than 500 letters, such as a value of a flag that is a whole file.
std::string WithShortWords(absl::string_view message) {
  constexpr size_t kLongest = 500, kKept = 100;  // bytes; at either end
  std::vector<std::string> words = absl::StrSplit(message, ' ');
  for (std::string& word : words) {
    if (word.size() > kLongest) word.replace(kKept, word.size() - 2 * kKept, "...");
  }
  return absl::StrJoin(words, " ");
}

// What the command printed has reached its destination, unless its reader has left (`| head`).
absl::Status FlushOutput() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return absl::OkStatus();
  const int error = errno;
  pollfd output = {STDOUT_FILENO, 0, 0};
  if (poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0) return absl::OkStatus();
  if (error == 0)  // an earlier write failed
    return WithExitCode(DataLoss("cannot write the standard output: a part of it is lost"), ExitCode::kData);
  return IoError("write", "the standard output", error);
}

[[noreturn]] void EndJob(const std::string& report) {
  constexpr int kInternalError = 1;
  if (job != nullptr) job->Abort(kInternalError, report);
  std::fprintf(stderr, "deeper: %s\n", report.c_str());
  std::_Exit(kInternalError);
}

int Main(std::vector<std::string> arguments) {
  PrepareProcess(EndJob);
  absl::StatusOr<std::unique_ptr<Communicator>> comm = MakeCommunicator();
  RestoreHangup();
  if (!comm.ok()) {
    std::fprintf(stderr, "deeper: %s\n", std::string(comm.status().message()).c_str());
    return static_cast<int>(ExitCodeOf(comm.status()));
  }
  job = comm->get();
  SetAbortHandler(EndJob);

  Commands commands;
  for (const auto make : {DEEPER_COMMANDS}) commands.push_back(make());
  const bool root = job->rank() == 0;
  std::string name;
  absl::Status status;
  if (!ShowHelp(commands, arguments, root ? stdout : nullptr)) {
    if (arguments[0] == "help") arguments.erase(arguments.begin());
    const absl::StatusOr<Command*> command = TakeCommand(commands, arguments);
    if (command.ok()) name = absl::StrCat(" ", (*command)->text.name);
    status = command.ok() ? Execute(**command, arguments, *job) : Usage(command.status(), "");
  }
  if (root) status.Update(FlushOutput());
  if (IsInputOutput(status)) status = WithExitCode(status, ExitCode::kData);
  if (!status.ok() && root && !status.message().empty()) {
    std::fprintf(stderr, "deeper%s: %s\n", name.c_str(), WithShortWords(status.message()).c_str());
  }
  return static_cast<int>(ExitCodeOf(status));
}

}  // namespace
}  // namespace deeper

int main(int argc, char** argv) {
  return deeper::Main({argv + 1, argv + argc});
}
