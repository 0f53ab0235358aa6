// Networks of Caffe.
#include "trainer/interchange/caffe_model.h"

#include "tests/fuzz/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  CheckWeights(deeper::ParseCaffeModel({data, size}, "input"));
  return 0;
}
