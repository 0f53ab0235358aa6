#include "trainer/run/flag.h"

#include <cmath>
#include <numeric>

#include "absl/flags/marshalling.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

// The number of one-letter changes that turn `a` into `b` (Levenshtein distance).
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

std::vector<std::string> NamesOf(const OneOf& one_of) {
  std::vector<std::string> names;
  for (const OneOf::Name& choice : one_of.choices) names.push_back(choice.name);
  return names;
}

}  // namespace

std::string Range::Text() const {
  const auto number = [this](double value) {
    return absl::StrCat(value, has_special() && value == special ? absl::StrCat(" (", meaning, ")") : "");
  };
  const std::string other = has_special() && special < min ? absl::StrCat(", or ", number(special)) : "";
  if (min == kPositive) return "positive";
  if (max < kNoteworthy) return absl::StrCat("between ", number(min), " and ", number(max), other);
  if (has_special() && special == min) return absl::StrCat(number(min), " or more");
  return absl::StrCat("at least ", number(min), other);
}

OneOf::OneOf(std::string* field, const std::vector<std::string>& names) {
  for (const std::string& name : names) choices.push_back({name, ""});
  get = [field] { return *field; };
  set = [field, names](size_t index) { *field = names[index]; };
}

std::string Flag::ValueText() const {
  return std::visit(
      []<class T>(const T& value) {
        if constexpr (std::is_same_v<T, OneOf>)
          return value.get();
        else
          return absl::UnparseFlag(*value);
      },
      field);
}

std::string Flag::Allowed() const {
  if (is_bool()) return "true or false";
  if (std::holds_alternative<std::string*>(field)) return "";
  if (const auto* one_of = std::get_if<OneOf>(&field))
    return absl::StrCat("one of ", absl::StrJoin(NamesOf(*one_of), ", "));
  const char* type = std::holds_alternative<double*>(field) ? "a number" : "an integer";
  if (range.is_limited()) return absl::StrCat(type, ", ", range.Text());
  return absl::StrCat(type, std::holds_alternative<uint64_t*>(field) ? ", at least 0" : "");
}

absl::Status Flag::Set(const std::string& value) const {
  const auto wrong = [&](const std::string& must_be) {
    return InvalidArgument("--", name, "=", value, ": must be ", must_be);
  };
  const auto set = [&]<class T>(const T& target) {
    if constexpr (std::is_same_v<T, OneOf>) {
      const std::vector<std::string> names = NamesOf(target);
      const auto found = std::find(names.begin(), names.end(), value);
      if (found == names.end()) return wrong(absl::StrCat(Allowed(), DidYouMean(value, names)));
      target.set(static_cast<size_t>(found - names.begin()));
    } else {
      std::string why;
      auto parsed = *target;
      if (!absl::ParseFlag(value, &parsed, &why)) return wrong(Allowed());
      if constexpr (!std::is_same_v<T, std::string*>) {
        if constexpr (std::is_same_v<T, double*>) {
          if (!std::isfinite(parsed)) return wrong(Allowed());
        }
        if (const auto number = static_cast<double>(parsed); !range.Contains(number))
          return wrong(number > range.max && range.max >= Range::kNoteworthy
                           ? absl::StrCat("at most ", range.max)
                           : range.Text());
      }
      *target = std::move(parsed);
    }
    return absl::OkStatus();
  };
  return std::visit(set, field);
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& known) {
  if (word.empty()) return "";
  const auto distance = [&](const std::string& name) {
    return name.starts_with(word) ? 0 : EditDistance(word, name);
  };
  const auto nearest = std::min_element(
      known.begin(), known.end(), [&](const auto& a, const auto& b) { return distance(a) < distance(b); });
  const bool near = nearest != known.end() && distance(*nearest) <= std::max<size_t>(2, word.size() / 4);
  return near ? absl::StrCat(" (did you mean ", *nearest, "?)") : "";
}

}  // namespace deeper
