// What parsers of weights promise about the tensors that they return.
#pragma once

#include <cstdint>
#include <iterator>

#include "absl/status/statusor.h"
#include "tests/fuzz/fuzz.h"
#include "trainer/checkpoint/weights_file.h"

inline void CheckWeights(const absl::StatusOr<deeper::Weights>& weights) {
  if (!weights.ok()) return;
  for (const deeper::TensorEntry& tensor : weights->tensors) {
    int64_t elements = 1;
    for (const int64_t side : tensor.shape) elements *= side;
    FUZZ_CHECK(elements == tensor.count && tensor.end() <= std::ssize(weights->values));
  }
}
