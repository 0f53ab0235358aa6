// Weights of torch.save: pickles, and zip archives of them.
#include "trainer/interchange/torch_file.h"

#include "tests/fuzz/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  CheckWeights(deeper::ParseTorchFile({data, size}, "input"));
  return 0;
}
