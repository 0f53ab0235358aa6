// MAT-files. An odd first byte adds a valid header before the rest.
#include <vector>

#include "data/io/mat_file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> bytes;
  if (data[0] & 1) {
    bytes.assign(128, 0);
    bytes[125] = 1;
    bytes[126] = 'I';
    bytes[127] = 'M';
  }
  bytes.insert(bytes.end(), data + 1, data + size);
  const auto array = deeper::ReadMatVariable(bytes, "synsets");
  if (array.ok()) {
    FUZZ_CHECK(array->fields.empty() ? array->elements.empty()
                                     : array->elements.size() % array->fields.size() == 0);
  }
  return 0;
}
