#include "launch/cli/command.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "trainer/monitor/metrics_fields.h"
#include "trainer/monitor/text_layout.h"

namespace deeper {
namespace {

constexpr char kTagline[] =
    "deeper trains GoogLeNet and related networks on one machine or, under mpirun, on several.";

constexpr char kFlagRules[] =
    "Write a flag as --name=value or --name value, and a flag that is true or false also as --name or "
    "--noname. A later flag overrides an earlier one. --flagfile=FILE reads flags from a file with one flag "
    "per line; lines that begin with # are comments.";

struct ExitCodeText {
  int code;
  const char* meaning;
  const char* restart;  // what deeper-run --restarts does
};
constexpr ExitCodeText kExitCodes[] = {
    {0, "done", "ends"},
    {1, "internal error, whose message names the place in the code; or no memory or threads left",
     "restarts"},
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

// The help and, in brackets, unit and limits. ExplainedChoices are not part of it.
std::string Description(const Flag& flag) {
  std::vector<std::string> notes;
  if (*flag.unit != '\0') notes.push_back(flag.unit);
  if (flag.range.is_limited()) notes.push_back(flag.range.Text());
  if (std::holds_alternative<OneOf>(flag.field) && ExplainedChoices(flag).empty())
    notes.push_back(flag.Allowed());
  return notes.empty() ? flag.help : absl::StrCat(flag.help, " [", absl::StrJoin(notes, ", "), "]");
}

// A paragraph, or, with a label, an item of a list.
struct Block {
  std::string label, text;
};

// The blocks of CommandText::details. A line "  LABEL  TEXT" begins an item; deeper lines continue it.
std::vector<Block> BlocksOf(const char* details) {
  std::vector<Block> blocks;
  bool item = false;
  for (const absl::string_view line : absl::StrSplit(details, '\n')) {
    const size_t indent = std::min(line.find_first_not_of(' '), line.size());
    const absl::string_view text = absl::StripAsciiWhitespace(line);
    if (indent == 2) {
      const size_t end = std::min(text.find("  "), text.size());
      blocks.push_back(
          {std::string(text.substr(0, end)), std::string(absl::StripAsciiWhitespace(text.substr(end)))});
    } else if (blocks.empty() || (item && indent == 0)) {
      blocks.push_back({"", std::string(text)});
    } else {
      absl::StrAppend(&blocks.back().text, " ", text);
    }
    item = !blocks.back().label.empty();
  }
  return blocks;
}

// "trains a network" -> "Trains a network."
std::string Sentence(std::string text) {
  text[0] = absl::ascii_toupper(static_cast<unsigned char>(text[0]));
  return text + ".";
}

int HelpColumns() {
  return TextColumns(stdout, kPipeColumns);
}

std::string Paragraph(const std::string& text, int columns) {
  return Wrapped("", text, 0, 0, columns);
}

}  // namespace

std::string Overview(const std::vector<std::unique_ptr<Command>>& commands, const std::string& group) {
  const int columns = HelpColumns();
  const std::string prefix = group.empty() ? "" : absl::StrCat(group, " ");
  std::string out;
  if (group.empty()) absl::StrAppend(&out, Paragraph(kTagline, columns), "\n");
  absl::StrAppend(&out, "Usage: deeper ", prefix, "COMMAND [--flags]\n\n");
  for (const auto& command : commands) {
    if (std::string(command->text.name).starts_with(prefix))
      out += Wrapped(command->text.name, command->text.summary, 2, 21, columns);
  }
  if (group.empty()) {
    absl::StrAppend(
        &out, "\nExamples:\n",
        Indented("deeper pack --format=idx --input=DIR --output=datasets/fashion-mnist --split=train\n"
                 "deeper train --data=datasets/fashion-mnist --flagfile=recipes/fashion-mnist.flags "
                 "--checkpoint_dir=runs/fashion-mnist\n"
                 "deeper predict --checkpoint=runs/fashion-mnist picture.png"));
  }
  absl::StrAppend(
      &out, "\n",
      Paragraph(
          absl::StrCat(
              "`deeper ", prefix,
              "COMMAND --help` describes a command "
              "and its flags. `deeper help exit-codes` and `deeper help metrics` print these references. "
              "`deeper --version` lists the versions of its libraries. `deeper help completion` "
              "prints a script for bash and zsh, `deeper help man` a manual page."),
          columns));
  return out;
}

std::string HelpOf(Command& command) {
  const int columns = HelpColumns();
  const CommandText& text = command.text;
  std::string out = absl::StrCat("Usage: ", UsageOf(text), "\n\n");
  for (const auto& [label, words] : BlocksOf(text.details))
    out += label.empty() ? Paragraph(words, columns) : Wrapped(label, words, 2, 21, columns);
  for (const FlagGroup& group : command.Flags()) {
    absl::StrAppend(&out, "\n", group.title, ":\n");
    for (const Flag& flag : group.flags) {
      out += Wrapped(absl::StrCat("--", flag.name, "=", flag.ValueText()), Description(flag), 2, 30, columns);
      for (const auto& [name, help] : ExplainedChoices(flag)) out += Wrapped(name, help, 32, 46, columns);
    }
  }
  absl::StrAppend(&out, "\n", Paragraph(kFlagRules, columns), "\nExamples:\n", Indented(text.examples),
                  "\nExit codes:\n");
  for (const ExitCodeText& code : kExitCodes)
    out += Wrapped(absl::StrCat(code.code), code.meaning, 2, 6, columns);
  return out;
}

std::string Markdown(const std::vector<std::unique_ptr<Command>>& commands) {
  std::string out = absl::StrCat(
      "# Command line\n\n<!-- Written by `deeper help --markdown`; a test compares. "
      "-->\n\n",
      Paragraph(kTagline, kPipeColumns), "\n", Paragraph(kFlagRules, kPipeColumns),
      "\nSee also [Exit codes](exit-codes.md).\n");
  for (const auto& command : commands) {
    const CommandText& text = command->text;
    absl::StrAppend(&out, "\n## deeper ", text.name, "\n\n", Sentence(text.summary), "\n\n```text\n",
                    UsageOf(text), "\n```\n\n");
    bool in_list = false;
    for (const auto& [label, words] : BlocksOf(text.details)) {
      if (label.empty() == in_list) out += "\n";
      in_list = !label.empty();
      out += in_list ? Wrapped("-", absl::StrCat("`", label, "`: ", words), 0, 2, kPipeColumns)
                     : Paragraph(words, kPipeColumns);
    }
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
    absl::StrAppend(&out, "\n```text\n", text.examples, "\n```\n");
  }
  return out;
}

std::string ExitCodesPage() {
  std::string out =
      "# Exit codes\n\n<!-- Written by `deeper help exit-codes`; a test compares. -->\n\n"
      "Every command of deeper ends with one of these codes. The last column is the reaction of\n"
      "`deeper-run --restarts=N` to a job with this code.\n\n"
      "| exit code | meaning | deeper-run |\n|---|---|---|\n";
  for (const ExitCodeText& text : kExitCodes)
    absl::StrAppendFormat(&out, "| %d | %s | %s |\n", text.code, text.meaning, text.restart);
  absl::StrAppend(&out, R"(
If a signal ends a process, its exit code is 128 plus the number of the signal: 137 for SIGKILL
(often from the kernel, if memory ran out), 139 for a crash. `deeper-run` restarts the job after
these as well.

[Failures](../guides/failures.md) says what to do for each code. `deeper doctor` gives 3, 4 and 5
[its own meanings](../guides/clusters.md#check-the-machines-first): which check of the machines
failed.
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
    absl::StrAppend(&out, "\n## ", event.name, "\n\n", Paragraph(event.when, kPipeColumns),
                    "\n| field | unit | |\n|---|---|---|\n");
    for (const MetricField& field : kMetricFields) {
      if (field.event == absl::string_view(event.name))
        absl::StrAppend(&out, "| `", field.name, "` | ", field.unit, " | ", field.meaning, " |\n");
    }
  }
  return out;
}

}  // namespace deeper
