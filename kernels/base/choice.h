// The names that flags and files use for the values of an enum. Each enum has one table, next to its
// definition:
//   constexpr auto Choices(Stem) {
//     return std::to_array<Choice<Stem>>({{"default", Stem::kDefault, "as published"}, ...});
//   }
#pragma once

#include <array>
#include <optional>
#include <string_view>

namespace deeper {

template <class E>
struct Choice {
  const char* name;
  E value;
  const char* help = "";
};

template <class E>
concept HasChoices = requires(E value) {
  Choices(value);
};

// Returns "" for a value that is not in the table, such as kNotGiven.
template <HasChoices E>
const char* NameOf(E value) {
  for (const auto& choice : Choices(value)) {
    if (choice.value == value) return choice.name;
  }
  return "";
}

// Returns nullopt if the table has no such name.
template <HasChoices E>
std::optional<E> ValueOf(std::string_view name) {
  for (const auto& choice : Choices(E{})) {
    if (choice.name == name) return choice.value;
  }
  return std::nullopt;
}

// The value of a flag that leaves the choice to another source, such as a checkpoint.
template <HasChoices E>
constexpr E kNotGiven = static_cast<E>(-1);

}  // namespace deeper
