// `deeper help completion` and `deeper help man`, from the commands' texts and flags.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "launch/cli/command.h"

namespace deeper {
namespace {

// The values that bash proposes for a flag; empty: names of files.
std::vector<std::string> ValuesOf(const Flag& flag) {
  std::vector<std::string> values;
  if (flag.is_bool()) return {"true", "false"};
  if (const auto* one_of = std::get_if<OneOf>(&flag.field))
    for (const OneOf::Name& choice : one_of->choices) values.push_back(choice.name);
  return values;
}

// Text for roff: backslashes and leading dots have a meaning there, and a hyphen would be typographic.
std::string Roff(const std::string& text) {
  std::string out = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}, {"\n.", "\n\\&."}});
  return out.starts_with('.') || out.starts_with('\'') ? absl::StrCat("\\&", out) : out;
}

}  // namespace

std::string BashCompletion(const std::vector<std::unique_ptr<Command>>& commands) {
  std::vector<std::string> first = {"help"};  // words
  std::string sub_commands, flags, values;    // cases of the script
  for (const auto& command : commands) {
    const std::string name = command->text.name, word = name.substr(0, name.find(' '));
    if (first.back() != word) first.push_back(word);
    if (word != name && sub_commands.find(absl::StrCat("    ", word, ") ")) == std::string::npos) {
      std::vector<std::string> seconds;
      for (const auto& other : commands) {
        const std::string full = other->text.name;
        if (full.starts_with(word + " ")) seconds.push_back(full.substr(word.size() + 1));
      }
      absl::StrAppend(&sub_commands, "    ", word, ") words=\"", absl::StrJoin(seconds, " "), "\" ;;\n");
    }
    std::vector<std::string> names = {"--help", "--flagfile="};
    for (const FlagGroup& group : command->Flags()) {
      for (const Flag& flag : group.flags) {
        names.push_back(absl::StrCat("--", flag.name, "="));
        if (const std::vector<std::string> choices = ValuesOf(flag); !choices.empty())
          absl::StrAppend(&values, "    \"", name, " --", flag.name, "\") words=\"",
                          absl::StrJoin(choices, " "), "\" ;;\n");
      }
    }
    absl::StrAppend(&flags, "    \"", name, "\") words=\"", absl::StrJoin(names, " "), "\" ;;\n");
  }
  return absl::StrCat(R"(# bash: source <(deeper help completion)
# zsh:  autoload -U +X bashcompinit && bashcompinit && source <(deeper help completion)
_deeper() {
  local line="${COMP_LINE:0:$COMP_POINT}" words="" command="" flag value
  local -a all
  read -r -${ZSH_VERSION:+A}${BASH_VERSION:+a} all <<<"$line"
  [[ $line == *[[:space:]] ]] && all+=("")
  local current="${all[${#all[@]} - 1]}" second="${all[1]-}"
  COMPREPLY=()
  if [ ${#all[@]} -le 2 ]; then
    COMPREPLY=($(compgen -W ")",
                      absl::StrJoin(first, " "), R"( --version" -- "$current"))
    return
  fi
  case $second in
)",
                      sub_commands, R"(  esac
  if [ -n "$words" ]; then
    if [ ${#all[@]} -eq 3 ]; then
      COMPREPLY=($(compgen -W "$words" -- "$current"))
      return
    fi
    command="$second ${all[2]}"
  else
    command="$second"
  fi
  words=""
  if [[ $current != --* ]]; then
    local IFS=$'\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$current"))
    return
  fi
  if [[ $current != *=* ]]; then
    case $command in
)",
                      flags, R"(    esac
    compopt -o nospace 2>/dev/null
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  flag="${current%%=*}" value="${current#*=}"
  case "$command $flag" in
)",
                      values, R"(  esac
  if [ -n "$words" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$value"))
  else
    local IFS=$'\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$value"))
  fi
  # Where = ends a word, bash replaces what follows it; elsewhere the whole word.
  [[ $COMP_WORDBREAKS == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/$flag=}")
}
complete -F _deeper deeper
)");
}

std::string ManPage(const std::vector<std::unique_ptr<Command>>& commands) {
  std::string out = absl::StrCat(
      ".TH DEEPER 1 \"\" \"deeper ", DEEPER_VERSION,
      "\" \"User Commands\"\n.SH NAME\ndeeper \\- trains GoogLeNet and related networks data\\-parallel\n"
      ".SH SYNOPSIS\n.B deeper\n\\fICOMMAND\\fR [\\fB\\-\\-FLAG\\fR=\\fIVALUE\\fR]...\n");
  for (const auto& command : commands) {
    const CommandText& text = command->text;
    absl::StrAppend(&out, ".SH deeper ", Roff(text.name), "\ndeeper ", Roff(text.name), " ",
                    Roff(text.summary), ".\n.PP\n.nf\n", Roff(text.details), "\n.fi\n");
    for (const FlagGroup& group : command->Flags()) {
      absl::StrAppend(&out, ".SS ", Roff(group.title), "\n");
      for (const Flag& flag : group.flags) {
        absl::StrAppend(&out, ".TP\n\\fB\\-\\-", Roff(flag.name), "\\fR=", Roff(flag.ValueText()), "\n",
                        Roff(flag.help));
        if (const std::string allowed = flag.Allowed(); !allowed.empty())
          absl::StrAppend(&out, " [", Roff(allowed), "]");
        out += "\n";
      }
    }
    absl::StrAppend(&out, ".SS Examples\n.nf\n", Roff(text.examples), "\n.fi\n");
  }
  return out;
}

}  // namespace deeper
