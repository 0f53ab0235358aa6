// Weights from files of any program that this build knows.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {

// What ReadWeights reads, a safetensors file, a file of torch.save, or a .caffemodel. The content decides,
// not the name. Where a file of another program does not describe its network, the names and shapes of its
// tensors tell the model and the number of classes; for torchvision's GoogLeNet also the pre-processing.
// `warnings` then says what was assumed. `average`: of a checkpoint. Errors as those readers;
// FailedPrecondition: none of these formats, lists them.
absl::StatusOr<Weights> ImportWeights(const std::string& path, Average average = Average::kIfAny);

}  // namespace deeper
