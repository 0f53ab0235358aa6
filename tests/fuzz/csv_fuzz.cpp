// CSV files.
#include "tests/fuzz/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  CheckCsv({reinterpret_cast<const char*>(data), size});
  return 0;
}
