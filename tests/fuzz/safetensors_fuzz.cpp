// Safetensors files.
#include "trainer/interchange/safetensors.h"

#include "tests/fuzz/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  CheckWeights(deeper::ParseSafetensors({data, size}, "input"));
  return 0;
}
