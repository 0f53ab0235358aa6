// What `deeper NAME` is: its words, its flags, and what it does.
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
  const char* summary;       // a line of `deeper --help`
  const char* operands;      // what may follow the flags, as the usage line says it; empty: nothing
  const char* details;       // whole lines
  const char* examples;      // a command line a line
  bool distributed = false;  // runs on every rank of an MPI job
};

struct Invocation {
  std::vector<std::string> operands;  // all that follow the command's name and are no flags
  Communicator& comm;

  bool is_root() const { return comm.rank() == 0; }
};

class Command {
 public:
  explicit Command(const CommandText& words) : text(words) {}
  virtual ~Command() = default;
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;

  // Bound to this object's fields; the same ones at every call.
  virtual std::vector<FlagGroup> Flags() { return {}; }
  // With the flags parsed. A failure says what to do and carries its exit code; where the command is
  // distributed, all ranks return the same.
  virtual absl::Status Run(const Invocation& call) = 0;

  const CommandText text;
};

// Abseil's syntax, and its rules for values; but every command has flags of its own, bound to fields. Sets
// the fields of the flags in `arguments`, in order, and leaves the others: --name=value, --name value, for
// bools also --name and --noname, and --flagfile=FILE: one argument a line, with empty lines and # comments,
// nested as deep as one likes. Returns the arguments that are no flags; all of them after "--".
// InvalidArgument: an unknown flag (with the nearest known one), a bad value, a file that cannot be read; an
// argument of a file is named with its line.
absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const std::vector<FlagGroup>& groups);

// The manual, from the commands' own words and flags: on the terminal, and as docs/reference/cli.md.
std::string Overview(const std::vector<std::unique_ptr<Command>>& commands);
std::string HelpOf(Command& command);
std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands);
// docs/reference/exit-codes.md and metrics.md.
std::string ExitCodesPage();
std::string MetricsPage();

}  // namespace deeper
