#include "launch/cli/help.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace deeper {
namespace {

constexpr char kTagline[] =
    "deeper trains GoogLeNet and its relatives on one machine or, under mpirun, on many.\n";

constexpr char kFlagRules[] =
    "Flags are --name=value or --name value; bools also --name and --noname. --flagfile=FILE reads flags "
    "from a\n"
    "file, one a line, # starting a comment; a later flag overrides an earlier one.\n";

struct ExitCodeText {
  int code;
  const char* meaning;
};
constexpr ExitCodeText kExitCodes[] = {
    {0, "done"},
    {1, "a fault in deeper itself; the message names the place"},
    {2, "usage: a flag, or flags that do not go together"},
    {3, "data: missing, damaged, or not what was asked for"},
    {4, "checkpoint or weights file: missing, damaged, of another model, or impossible to write"},
    {5, "communication: a rank was lost, stopped or stuck; the message names it"},
    {6, "training: loss or gradients were NaN or infinite"},
    {75, "stopped by a signal, and saved: the same command goes on from there"},
};

std::string UsageOf(const CommandText& text) {
  const bool has_operands = *text.operands != '\0';
  return absl::StrCat(text.distributed ? "[mpirun -n RANKS] " : "", "deeper ", text.name, " [--flags]",
                      has_operands ? " " : "", text.operands);
}

std::string Indented(const char* lines) {
  return absl::StrCat("  ", absl::StrReplaceAll(lines, {{"\n", "\n  "}}), "\n");
}

}  // namespace

std::string Overview(const std::vector<std::unique_ptr<Command>>& commands) {
  std::string out = absl::StrCat(kTagline, "\nUsage: deeper COMMAND [--flags]\n\n");
  for (const auto& command : commands)
    absl::StrAppendFormat(&out, "  %-19s%s\n", command->text.name, command->text.summary);
  absl::StrAppend(
      &out, "\nExamples:\n",
      Indented(
          "deeper pack --format=idx --input=DIR --output=datasets/fashion-mnist --split=train\n"
          "mpirun -n 2 deeper train --data=datasets/fashion-mnist --flagfile=recipes/fashion-mnist.flags\n"
          "deeper predict --checkpoint=runs/fashion-mnist picture.png"),
      "\n`deeper COMMAND --help` explains a command and its flags.\n");
  return out;
}

std::string HelpOf(Command& command) {
  const CommandText& text = command.text;
  std::string out = absl::StrCat("Usage: ", UsageOf(text), "\n\n", text.details, "\n");
  for (const FlagGroup& group : command.Flags()) {
    absl::StrAppend(&out, "\n", group.title, ":\n");
    for (const Flag& flag : group.flags) {
      absl::StrAppendFormat(&out, "  %-28s %s\n", absl::StrCat("--", flag.name, "=", flag.ValueText()),
                            flag.help);
    }
  }
  absl::StrAppend(&out, "\n", kFlagRules, "\nExamples:\n", Indented(text.examples), "\nExit codes:\n");
  for (const auto& [code, meaning] : kExitCodes) absl::StrAppendFormat(&out, "  %-2d  %s\n", code, meaning);
  return out;
}

std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands) {
  std::string out =
      absl::StrCat("# Command line\n\n<!-- Written by `deeper help --markdown`; a test compares. -->\n\n",
                   kTagline, "\n", kFlagRules, "\n| exit code | meaning |\n|---|---|\n");
  for (const auto& [code, meaning] : kExitCodes) absl::StrAppendFormat(&out, "| %d | %s |\n", code, meaning);
  for (const auto& command : commands) {
    const CommandText& text = command->text;
    absl::StrAppend(&out, "\n## deeper ", text.name, "\n\n", text.summary, "\n\n    ", UsageOf(text), "\n\n",
                    text.details, "\n");
    for (const FlagGroup& group : command->Flags()) {
      absl::StrAppend(&out, "\n| ", group.title, " | default | |\n|---|---|---|\n");
      for (const Flag& flag : group.flags) {
        const std::string value = flag.ValueText();
        absl::StrAppendFormat(&out, "| `--%s` | %s | %s |\n", flag.name,
                              value.empty() ? "" : absl::StrCat("`", value, "`"),
                              absl::StrReplaceAll(flag.help, {{"|", "\\|"}}));
      }
    }
    absl::StrAppend(&out, "\n    ", absl::StrReplaceAll(text.examples, {{"\n", "\n    "}}), "\n");
  }
  return out;
}

}  // namespace deeper
