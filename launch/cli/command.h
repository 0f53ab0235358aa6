// A command `deeper NAME`: its help text, its flags and its work.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "trainer/run/flag.h"

namespace deeper {

struct CommandText {
  const char* name;          // one or two words
  const char* summary;       // for `deeper --help`: a verb, no period
  const char* operands;      // of the usage line; empty: the command takes none
  const char* details;       // a paragraph; lines "  LABEL  TEXT" are items of a list
  const char* examples;      // one command per line
  bool distributed = false;  // runs on every rank of an MPI job
};

struct Invocation {
  std::vector<std::string> operands;  // arguments after the command's name that are not flags
  Communicator& comm;

  bool is_root() const { return comm.rank() == 0; }
};

class Command {
 public:
  explicit Command(const CommandText& words) : text(words) {}
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // Bound to this object's fields; the same flags at every call.
  virtual std::vector<FlagGroup> Flags() { return {}; }
  // Runs after the flags are parsed. A failure says what to do and carries its exit code. All ranks of a
  // distributed command return the same.
  virtual absl::Status Run(const Invocation& call) = 0;

  const CommandText text;
};

// Sets the fields of the flags in `arguments`, in order, and leaves other fields unchanged. The syntax and
// the rules for values are those of Abseil: --name=value, --name value, for bools also --name and --noname,
// and
// --flagfile=FILE, a file of one argument per line, empty lines and # comments, which may name other such
// files. Returns the arguments that are not flags, and all arguments after "--". InvalidArgument: an unknown
// flag (with the nearest known one), a bad value, or an unreadable file. Errors in a file name the line.
absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const std::vector<FlagGroup>& groups);

// The manual, from the commands' texts and flags: on the terminal, as wide as it is, and as
// docs/reference/cli.md. With a `group` ("bench"), the overview lists only the commands of that first word.
std::string Overview(const std::vector<std::unique_ptr<Command>>& commands, const std::string& group = "");
std::string HelpOf(Command& command);
std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands);
// For section 1 of the manual pages, in roff: `deeper help man`.
std::string ManPage(const std::vector<std::unique_ptr<Command>>& commands);
// A script for bash, and for zsh with bashcompinit, that completes commands, flags and values of flags.
std::string BashCompletion(const std::vector<std::unique_ptr<Command>>& commands);
// docs/reference/exit-codes.md and metrics.md.
std::string ExitCodesPage();
std::string MetricsPage();

}  // namespace deeper
