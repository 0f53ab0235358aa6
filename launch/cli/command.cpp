#include "launch/cli/command.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "trainer/monitor/metrics_fields.h"

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
  const char* restart;  // what deeper-run --restarts does
};
constexpr ExitCodeText kExitCodes[] = {
    {0, "done", "ends"},
    {1, "internal error; the message names the place in the code", "restarts"},
    {2, "usage: an invalid flag, or flags that exclude each other", "ends"},
    {3, "data: missing, damaged, of another kind than requested, or output that cannot be written", "ends"},
    {4, "checkpoint or weights file: missing, damaged, of another model, or impossible to write", "ends"},
    {5, "communication: a rank was lost, was stopped or made no progress; the message names it", "restarts"},
    {6, "training: the loss or a gradient was NaN or infinite", "ends"},
    {75, "stopped by a signal after saving a checkpoint; the same command resumes from it", "ends"},
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
      "\n`deeper COMMAND --help` explains a command and its flags; `deeper help exit-codes` and `deeper help "
      "metrics` print\nthese references.\n");
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
  for (const ExitCodeText& code : kExitCodes)
    absl::StrAppendFormat(&out, "  %-2d  %s\n", code.code, code.meaning);
  return out;
}

std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands) {
  std::string out =
      absl::StrCat("# Command line\n\n<!-- Written by `deeper help --markdown`; a test compares. -->\n\n",
                   kTagline, "\n", kFlagRules, "\nExit codes: [exit-codes.md](exit-codes.md).\n");
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

std::string ExitCodesPage() {
  std::string out =
      "# Exit codes\n\n<!-- Written by `deeper help exit-codes`; a test compares. -->\n\n"
      "Every command of deeper ends with one of these. The last column says what\n"
      "`deeper-run --restarts=N` does after a job with this code.\n\n"
      "| exit code | meaning | deeper-run |\n|---|---|---|\n";
  for (const ExitCodeText& text : kExitCodes)
    absl::StrAppendFormat(&out, "| %d | %s | %s |\n", text.code, text.meaning, text.restart);
  absl::StrAppend(&out, R"(
A process that a signal ended has 128 plus the number of the signal: 137 for SIGKILL (often the
kernel, out of memory), 139 for a crash. `deeper-run` restarts the job after these as well.
)");
  return out;
}

std::string MetricsPage() {
  std::string out = R"(# Metrics

<!-- Written by `deeper help metrics`; a test compares. -->

`train --metrics_out=FILE` writes one JSON object per line. Rank 0 writes each line as soon as the
event happens. A process that was killed may leave its last line incomplete; a resumed run starts a
new line. Every event begins with `event`, its name, and ends with `time`, in seconds since 1970. A
number that is not finite is written as null. A reader should ignore fields that it does not know.
)";
  for (const MetricEvent& event : kMetricEvents) {
    absl::StrAppend(&out, "\n## ", event.name, "\n\n", event.when, "\n\n| field | unit | |\n|---|---|---|\n");
    for (const MetricField& field : kMetricFields) {
      if (field.event == absl::string_view(event.name))
        absl::StrAppend(&out, "| `", field.name, "` | ", field.unit, " | ", field.meaning, " |\n");
    }
  }
  return out;
}

}  // namespace deeper
