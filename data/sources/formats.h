// The input formats that `pack` reads. A new one is a file that defines its OpenSource, and a table row.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/sources/source.h"

namespace deeper {

struct SourceFormat {
  const char* name;
  OpenSource* open;
  bool train_sorted_by_class;  // and so to be packed in a random order
  const char* help;            // lines, without a newline at the end
};

std::span<const SourceFormat> SourceFormats();
// In the order of the table.
std::vector<std::string> FormatNames();
// InvalidArgument: lists the names that there are.
absl::StatusOr<const SourceFormat*> FindFormat(const std::string& name);

}  // namespace deeper
