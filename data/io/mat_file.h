// Reads MATLAB's MAT-files of level 5 (versions 5 to 7), as far as ImageNet's devkit needs: arrays of
// numbers, text, and structures of them; compressed or not; little-endian.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

// Of the members after its name, those that its class calls for.
struct MatArray {
  std::string name;  // of a variable
  std::vector<double> numbers;
  std::string text;  // what is not ASCII becomes '?'
  // A structure array: element e has field f at fields.size() * e + f.
  std::vector<std::string> fields;
  std::vector<MatArray> elements;
};

// Variable `name`. NotFound: there is none. DataLoss: damaged, or not such a file. Unimplemented: classes of
// arrays other than the above.
absl::StatusOr<MatArray> ReadMatVariable(std::span<const uint8_t> file, const std::string& name);

}  // namespace deeper
