// A flag of the command line. One row gives its name, field, help and allowed values. Parsing, validation,
// messages, `--help` and docs/reference/cli.md are derived from the row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "kernels/base/choice.h"

namespace deeper {

// The allowed values of a number: `min` to `max`, and `special`, which stands for `meaning`.
struct Range {
  static constexpr double kNoteworthy = 1e6;  // larger limits only keep sums finite; Text() omits them
  static constexpr double kAny = 1e15;
  static constexpr double kPositive = 1e-9;  // as `min`: more than 0

  constexpr Range() = default;
  constexpr explicit Range(double least, double most = kAny, const char* special_meaning = "",
                           double special_value = 0)
      : min(least), max(most), meaning(special_meaning), special(special_value) {}

  double min = -std::numeric_limits<double>::infinity(), max = kAny;
  const char* meaning = "";  // empty: no value is special
  double special = 0;

  bool has_special() const { return *meaning != '\0'; }
  bool is_limited() const { return min >= -kAny; }
  bool Contains(double value) const {
    return (value >= min && value <= max) || (has_special() && value == special) || !is_limited();
  }
  // "at least 1", "0 (until --max_steps) or more", "between 0 (none) and 4", ...
  std::string Text() const;
};

// A field with one of several named values.
struct OneOf {
  template <HasChoices E>
  OneOf(E* field) : OneOf(field, Choices(E{})) {}  // NOLINT(google-explicit-constructor): in rows of flags
  template <class E>
  OneOf(E* field, std::type_identity_t<std::span<const Choice<E>>> table) {
    std::vector<E> values;
    for (const Choice<E>& choice : table) {
      choices.push_back({choice.name, choice.help});
      values.push_back(choice.value);
    }
    get = [field, values, names = choices]() -> std::string {
      const auto found = std::find(values.begin(), values.end(), *field);
      return found == values.end() ? "" : names[static_cast<size_t>(found - values.begin())].name;
    };
    set = [field, values](size_t index) { *field = values[index]; };
  }
  OneOf(std::string* field, const std::vector<std::string>& names);

  struct Name {
    std::string name, help;
  };
  std::vector<Name> choices;
  std::function<std::string()> get;  // empty: none of the choices
  std::function<void(size_t)> set;   // the field becomes choices[index]
};

struct Flag {
  std::string name;
  // Holds the default until parsed.
  std::variant<bool*, int*, int64_t*, uint64_t*, double*, std::string*, OneOf> field;
  std::string help;
  Range range = {};       // of numbers
  const char* unit = "";  // of numbers only: "steps"
  bool once = false;      // two values in a row: an error, an expanded pattern

  bool is_bool() const { return std::holds_alternative<bool*>(field); }
  std::string ValueText() const;
  // "true or false", "one of fp32, bf16", "an integer, at least 1"; empty for text.
  std::string Allowed() const;
  // InvalidArgument names the flag, the value and what is allowed; the field is then unchanged.
  absl::Status Set(const std::string& value) const;
};

struct FlagGroup {
  const char* title;
  std::vector<Flag> flags;
};

// " (did you mean NAME?)" with the name in `known` that is closest to `word`, or "" if none is close.
std::string DidYouMean(std::string_view word, const std::vector<std::string>& known);

}  // namespace deeper
