// Reads MATLAB's MAT-files of level 5 (versions 5 to 7) as far as ImageNet's devkit needs: arrays of numbers,
// text, and structures of them; compressed or not; little-endian.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

// Beside the name, only the members of the array's class are set.
struct MatArray {
  std::string name;  // of a variable
  std::vector<double> numbers;
  std::string text;  // other characters than ASCII become '?'
  // A structure array: field f of element e is elements[fields.size() * e + f].
  std::vector<std::string> fields;
  std::vector<MatArray> elements;
};

// Reads variable `name`. NotFound: no such variable. DataLoss: damaged, or not a MAT-file. Unimplemented:
// classes of arrays other than the above.
absl::StatusOr<MatArray> ReadMatVariable(std::span<const uint8_t> file, const std::string& name);

}  // namespace deeper
