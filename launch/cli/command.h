// What `deeper NAME` is: its words, its flags, and what it does. One file a command.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/communicator.h"
#include "launch/cli/flags.h"

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
  std::vector<std::string> arguments;  // all that follow the command's name
  std::vector<std::string> operands;   // those of them that are no flags
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

// The manual, from the commands' own words and flags: on the terminal, and as docs/reference/cli.md.
std::string Overview(const std::vector<std::unique_ptr<Command>>& commands);
std::string HelpOf(Command& command);
std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands);
// docs/reference/exit-codes.md and metrics.md.
std::string ExitCodesPage();
std::string MetricsPage();

}  // namespace deeper
