// Labels that an input has as a text per image: numbers, or names of classes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/sources/source.h"

namespace deeper {

struct TextLabel {
  std::string text;
  std::string where;  // "labels.csv, line 3", for messages
};

struct NumberedLabels {
  std::vector<std::string> classes;
  std::vector<int> labels;  // of each text
};

// If every text is a class of `listed` (ListedClasses()), texts are names. Else, if all are whole numbers,
// they are positions in `listed`, from 0; without a list, the classes are called "0", "1", ... up to the
// largest number. Otherwise the texts are names, and without a list, the classes are these, sorted.
// InvalidArgument: a text that is not a class, or cannot be the name of one; a number out of range; numbers
// beside names without a list.
absl::StatusOr<NumberedLabels> NumberLabels(const std::vector<TextLabel>& texts,
                                            std::vector<std::string> listed);

// Warns if some classes have no images.
void WarnOfEmptyClasses(ImageSource* source);

}  // namespace deeper
