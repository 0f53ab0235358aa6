// ParseFlags, of launch/cli/command.h.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "data/io/file.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"

namespace deeper {
namespace {

// An argument and its place for messages: "" for the command line, else "FILE:LINE: ".
struct Argument {
  std::string text, place;
};

class Parser {
 public:
  explicit Parser(const std::vector<FlagGroup>& groups) {
    for (const FlagGroup& group : groups) {
      for (const Flag& flag : group.flags) flags_.push_back(&flag);
    }
  }

  absl::Status Parse(const std::vector<Argument>& arguments) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const Argument& argument = arguments[i];
      if (argument.text == "--") {
        for (++i; i < arguments.size(); ++i) operands_.push_back(arguments[i].text);
      } else if (!argument.text.starts_with("-") || argument.text == "-") {
        operands_.push_back(argument.text);
      } else {
        const Argument* next = i + 1 < arguments.size() ? &arguments[i + 1] : nullptr;
        ASSIGN_OR_RETURN(bool took_next, ParseOne(argument, next));
        if (took_next) ++i;
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::string> operands() && { return std::move(operands_); }

 private:
  static bool IsBool(const Flag* flag) { return flag != nullptr && flag->is_bool(); }

  const Flag* Find(const std::string& name) const {
    const auto found =
        std::find_if(flags_.begin(), flags_.end(), [&](const Flag* f) { return f->name == name; });
    return found == flags_.end() ? nullptr : *found;
  }

  // True if `next` is the flag's value.
  absl::StatusOr<bool> ParseOne(const Argument& argument, const Argument* next) {
    const std::vector<std::string> parts = absl::StrSplit(argument.text, absl::MaxSplits('=', 1));
    const std::string name(absl::StripPrefix(absl::StripPrefix(parts[0], "-"), "-"));
    const bool has_value = parts.size() == 2;
    const Flag* flag = Find(name);
    const bool negated =
        flag == nullptr && !has_value && name.starts_with("no") && IsBool(Find(name.substr(2)));
    if (negated) flag = Find(name.substr(2));
    if (flag == nullptr) return Unknown(argument, parts[0]);
    const bool takes_next = !has_value && !IsBool(flag);
    if (takes_next && next == nullptr) return InvalidArgument(argument.place, parts[0], " needs a value");
    const std::string value = has_value ? parts[1] : takes_next ? next->text : negated ? "false" : "true";
    if (std::exchange(last_, flag) == flag && flag->once) {
      return InvalidArgument(argument.place, parts[0], " is given twice, the second time as ", value,
                             "; put a pattern into quotes, or the shell expands its braces");
    }
    if (flag == &flagfile_) {
      RETURN_IF_ERROR(ParseFile(argument, value));
    } else if (value.empty() && flag->ValueText().empty()) {
      return takes_next;  // the checkpoint determines this choice
    } else if (const absl::Status set = flag->Set(value); !set.ok()) {
      return InvalidArgument(argument.place, set.message());
    }
    return takes_next;
  }

  absl::Status Unknown(const Argument& argument, const std::string& written) const {
    if (const size_t blank = written.find(' '); blank != std::string::npos) {
      return InvalidArgument(argument.place, "there is no flag ", written, "; write ",
                             written.substr(0, blank), "=VALUE, or the value on a line of its own");
    }
    std::vector<std::string> names = {"--help"};
    for (const Flag* flag : flags_) names.push_back("--" + flag->name);
    return InvalidArgument(argument.place, "there is no flag ", written, DidYouMean(written, names));
  }

  absl::Status ParseFile(const Argument& argument, const std::string& path) {
    if (std::find(open_files_.begin(), open_files_.end(), path) != open_files_.end())
      return InvalidArgument(argument.place, "--flagfile=", path, ": the file includes itself");
    const absl::StatusOr<std::string> text = ReadText(path);
    if (!text.ok()) return InvalidArgument(argument.place, "--flagfile: ", text.status().message());
    std::vector<Argument> lines;
    int number = 0;
    for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
      ++number;
      const absl::string_view stripped = absl::StripAsciiWhitespace(line);
      if (stripped.empty() || stripped[0] == '#') continue;
      Argument in_file{std::string(stripped), absl::StrCat(path, ":", number, ": ")};
      if (stripped[0] != '-') return InvalidArgument(in_file.place, in_file.text, " is not a flag");
      lines.push_back(std::move(in_file));
    }
    open_files_.push_back(path);
    absl::Status status = Parse(lines);
    open_files_.pop_back();
    return status;
  }

  const Flag flagfile_ = {"flagfile", static_cast<std::string*>(nullptr), ""};
  std::vector<const Flag*> flags_ = {&flagfile_};
  const Flag* last_ = nullptr;
  std::vector<std::string> operands_;
  std::vector<std::string> open_files_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const std::vector<FlagGroup>& groups) {
  std::vector<Argument> on_command_line;
  for (const std::string& text : arguments) on_command_line.push_back({text, ""});
  Parser parser(groups);
  RETURN_IF_ERROR(parser.Parse(on_command_line));
  return std::move(parser).operands();
}

}  // namespace deeper
