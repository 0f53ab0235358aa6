// The image files that the operands of `predict` name.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

// Each operand is a file, a folder (its JPEG, PNG and WebP files, also in sub-folders and links to
// folders, in alphabetical order, without hidden ones), a pattern of the shell such as "photos/*.jpg" if no
// file has this name, or "-": names from the standard input, one per line. NotFound: a folder or pattern
// without images. Names of files are not checked.
absl::StatusOr<std::vector<std::string>> ListImages(const std::vector<std::string>& operands);

}  // namespace deeper
