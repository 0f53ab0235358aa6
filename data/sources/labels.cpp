#include "data/sources/labels.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

bool IsNumber(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, absl::ascii_isdigit);
}

absl::StatusOr<NumberedLabels> FromNumbers(const std::vector<TextLabel>& texts,
                                           std::vector<std::string> classes) {
  constexpr int kMaxLabel = std::numeric_limits<uint16_t>::max();
  const bool listed = !classes.empty();
  const int limit = listed ? static_cast<int>(classes.size()) - 1 : kMaxLabel;
  NumberedLabels numbered;
  int largest = -1;
  for (const TextLabel& each : texts) {
    int label = 0;
    if (!absl::SimpleAtoi(each.text, &label) || label > limit) {
      return InvalidArgument(each.where, ": label ", each.text, ", but ",
                             listed ? absl::StrCat("there are ", classes.size(), " classes, counted from 0")
                                    : absl::StrCat("labels go up to ", kMaxLabel));
    }
    largest = std::max(largest, label);
    numbered.labels.push_back(label);
  }
  if (!listed) {
    for (int i = 0; i <= largest; ++i) classes.push_back(absl::StrCat(i));
  }
  numbered.classes = std::move(classes);
  return numbered;
}

}  // namespace

absl::StatusOr<NumberedLabels> NumberLabels(const std::vector<TextLabel>& texts,
                                            std::vector<std::string> listed) {
  std::map<std::string, int> names;  // to labels
  for (const std::string& name : listed) names.emplace(name, static_cast<int>(names.size()));
  const bool all_listed =
      std::ranges::all_of(texts, [&](const TextLabel& each) { return names.contains(each.text); });
  const auto name = std::ranges::find_if_not(texts, IsNumber, &TextLabel::text);
  if (!all_listed && name == texts.end()) return FromNumbers(texts, std::move(listed));
  if (listed.empty()) {
    const auto number = std::ranges::find_if(texts, IsNumber, &TextLabel::text);
    if (number != texts.end()) {
      return InvalidArgument("some labels are numbers and some are names: ", number->text, " (",
                             number->where, "), ", absl::Utf8SafeCHexEscape(name->text), " (", name->where,
                             "); correct them, or list the names of all classes in a classes.txt");
    }
    for (const TextLabel& each : texts) {
      if (each.text.empty() || std::ranges::any_of(each.text, absl::ascii_iscntrl))
        return InvalidArgument(each.where, ": \"", absl::Utf8SafeCHexEscape(each.text),
                               "\" is not the name of a class");
      names.emplace(each.text, 0);
    }
    for (auto& [text, label] : names) {
      label = static_cast<int>(listed.size());
      listed.push_back(text);
    }
  }
  NumberedLabels numbered;
  for (const TextLabel& each : texts) {
    const auto found = names.find(each.text);
    if (found == names.end()) {
      return InvalidArgument(each.where, ": \"", absl::Utf8SafeCHexEscape(each.text), "\" is not one of the ",
                             listed.size(), " classes of classes.txt or of the splits already packed");
    }
    numbered.labels.push_back(found->second);
  }
  numbered.classes = std::move(listed);
  return numbered;
}

void WarnOfEmptyClasses(ImageSource* source) {
  const std::vector<std::string>& classes = source->classes();
  std::vector<bool> seen(classes.size());
  for (int64_t i = 0; i < source->size(); ++i) seen[static_cast<size_t>(source->Label(i))] = true;
  const auto missing = std::ranges::count(seen, false);
  if (missing == 0) return;
  const auto first = static_cast<size_t>(std::ranges::find(seen, false) - seen.begin());
  source->Warn(absl::StrCat(missing, " classes have no images; the first is ", classes[first]));
}

}  // namespace deeper
