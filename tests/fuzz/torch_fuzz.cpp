// Weights of torch.save: pickles, and zip archives of them.
#include "trainer/interchange/torch_file.h"

#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto weights = deeper::ParseTorchFile({data, size}, "input");
  if (!weights.ok()) return 0;
  for (const deeper::TensorEntry& tensor : weights->tensors) {
    int64_t elements = 1;
    for (const int64_t side : tensor.shape) elements *= side;
    FUZZ_CHECK(elements == tensor.count && tensor.end() <= std::ssize(weights->values));
  }
  return 0;
}
