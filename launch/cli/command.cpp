#include "launch/cli/command.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace deeper {
namespace {

constexpr char kTagline[] =
    "deeper trains GoogLeNet and its relatives on one machine or, under mpirun, on many.\n";

constexpr char kFlagRules[] =
    "Flags are --name=value or --name value; bools also --name and --noname. --flagfile=FILE reads flags "
    "from a\n"
    "file, one a line, # starting a comment; a later flag overrides an earlier one.\n";

constexpr std::pair<int, const char*> kExitCodes[] = {
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

std::vector<OneOf::Name> ExplainedChoices(const Flag& flag) {
  const auto* one_of = std::get_if<OneOf>(&flag.field);
  return one_of == nullptr || one_of->choices[0].help.empty() ? std::vector<OneOf::Name>() : one_of->choices;
}

// The help and, in brackets, unit and limits. Choices with an explanation have lines of their own.
std::string Description(const Flag& flag) {
  std::vector<std::string> notes;
  if (*flag.unit != '\0') notes.push_back(flag.unit);
  if (flag.range.is_limited()) notes.push_back(flag.range.Text());
  if (std::holds_alternative<OneOf>(flag.field) && ExplainedChoices(flag).empty())
    notes.push_back(flag.Allowed());
  return notes.empty() ? flag.help : absl::StrCat(flag.help, " [", absl::StrJoin(notes, ", "), "]");
}

// `text` at column `indent` after `label` at column `start`, in lines of at most 100 columns.
void AppendWrapped(const std::string& label, const std::string& text, size_t start, size_t indent,
                   std::string& out) {
  constexpr size_t kColumns = 100;
  std::string line = absl::StrCat(std::string(start, ' '), label);
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (line.size() + 1 + word.size() > kColumns) {
      absl::StrAppend(&out, line, "\n");
      line.clear();
    }
    line.resize(std::max(line.size() + 1, indent), ' ');
    absl::StrAppend(&line, word);
  }
  absl::StrAppend(&out, line, "\n");
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
      AppendWrapped(absl::StrCat("--", flag.name, "=", flag.ValueText()), Description(flag), 2, 30, out);
      for (const auto& [name, help] : ExplainedChoices(flag)) AppendWrapped(name, help, 32, 46, out);
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
        std::string description = Description(flag);
        for (const auto& [name, help] : ExplainedChoices(flag))
          absl::StrAppend(&description, "<br>`", name, "`: ", help);
        absl::StrAppendFormat(&out, "| `--%s` | %s | %s |\n", flag.name,
                              value.empty() ? "" : absl::StrCat("`", value, "`"),
                              absl::StrReplaceAll(description, {{"|", "\\|"}}));
      }
    }
    absl::StrAppend(&out, "\n    ", absl::StrReplaceAll(text.examples, {{"\n", "\n    "}}), "\n");
  }
  return out;
}

}  // namespace deeper
