// WebDataset archives. The first byte selects whether the checksums of headers are corrected.
#include "tests/fuzz/tar_checksums.h"
#include "tests/fuzz/webdataset.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> bytes(data + 1, data + size);
  if (data[0] & 1) deeper::PutChecksumsRight(&bytes);
  CheckWebArchive(bytes);
  return 0;
}
