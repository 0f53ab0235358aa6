// The input formats of `pack`. To add one, define its OpenSource in a new file and add a table row.
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
  bool train_sorted_by_class;  // so `pack` shuffles it by default
  const char* help;            // lines, without a newline at the end
};

std::span<const SourceFormat> SourceFormats();
// In the order of the table.
std::vector<std::string> FormatNames();
// InvalidArgument, listing the names of the formats.
absl::StatusOr<const SourceFormat*> FindFormat(const std::string& name);

}  // namespace deeper
