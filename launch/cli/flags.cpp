#include "launch/cli/flags.h"

#include <algorithm>
#include <numeric>

#include "absl/flags/marshalling.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "data/io/file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// Changes of one letter that turn `a` into `b` (Levenshtein).
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// An argument, and for messages the place of it: "" for the command line, else "FILE:LINE: ".
struct Argument {
  std::string text, place;
};

absl::Status Error(const Argument& argument, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat(argument.place, message));
}

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
  static bool IsBool(const Flag* flag) {
    return flag != nullptr && std::holds_alternative<bool*>(flag->field);
  }

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
    if (takes_next && next == nullptr) return Error(argument, absl::StrCat(parts[0], " needs a value"));
    const std::string value = has_value ? parts[1] : takes_next ? next->text : negated ? "false" : "true";
    RETURN_IF_ERROR(flag == &flagfile_ ? ParseFile(argument, value) : Set(*flag, argument, value));
    return takes_next;
  }

  absl::Status Unknown(const Argument& argument, const std::string& written) const {
    std::vector<std::string> names = {"--help"};
    for (const Flag* flag : flags_) names.push_back("--" + flag->name);
    return Error(argument, absl::StrCat("there is no flag ", written, DidYouMean(written, names)));
  }

  absl::Status Set(const Flag& flag, const Argument& argument, const std::string& value) const {
    std::string why;
    const bool ok = std::visit([&](auto* field) { return absl::ParseFlag(value, field, &why); }, flag.field);
    if (ok) return absl::OkStatus();
    const char* wanted = IsBool(&flag)                                   ? "true or false"
                         : std::holds_alternative<double*>(flag.field)   ? "a number"
                         : std::holds_alternative<uint64_t*>(flag.field) ? "an integer, at least 0"
                                                                         : "an integer in range";
    return Error(argument, absl::StrCat("--", flag.name, "=", value, ": must be ", wanted));
  }

  absl::Status ParseFile(const Argument& argument, const std::string& path) {
    if (std::find(open_files_.begin(), open_files_.end(), path) != open_files_.end())
      return Error(argument, absl::StrCat("--flagfile=", path, ": the file includes itself"));
    const absl::StatusOr<std::vector<uint8_t>> bytes = ReadFile(path);
    if (!bytes.ok()) return Error(argument, absl::StrCat("--flagfile: ", bytes.status().message()));
    const std::string text(bytes->begin(), bytes->end());
    std::vector<Argument> lines;
    int number = 0;
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      ++number;
      const absl::string_view stripped = absl::StripAsciiWhitespace(line);
      if (stripped.empty() || stripped[0] == '#') continue;
      Argument in_file{std::string(stripped), absl::StrCat(path, ":", number, ": ")};
      if (stripped[0] != '-') return Error(in_file, absl::StrCat(in_file.text, " is no flag"));
      lines.push_back(std::move(in_file));
    }
    open_files_.push_back(path);
    absl::Status status = Parse(lines);
    open_files_.pop_back();
    return status;
  }

  const Flag flagfile_ = {"flagfile", static_cast<std::string*>(nullptr), ""};
  std::vector<const Flag*> flags_ = {&flagfile_};
  std::vector<std::string> operands_;
  std::vector<std::string> open_files_;
};

}  // namespace

std::string Flag::ValueText() const {
  return std::visit([](const auto* value) { return absl::UnparseFlag(*value); }, field);
}

absl::StatusOr<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments,
                                                    const std::vector<FlagGroup>& groups) {
  std::vector<Argument> on_command_line;
  for (const std::string& text : arguments) on_command_line.push_back({text, ""});
  Parser parser(groups);
  RETURN_IF_ERROR(parser.Parse(on_command_line));
  return std::move(parser).operands();
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& known) {
  const auto distance = [&](const std::string& name) {
    return name.starts_with(word) ? 0 : EditDistance(word, name);
  };
  const auto nearest = std::min_element(
      known.begin(), known.end(), [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  const bool near = nearest != known.end() && distance(*nearest) <= std::max<size_t>(2, word.size() / 4);
  return near ? absl::StrCat(" (did you mean ", *nearest, "?)") : "";
}

}  // namespace deeper
