// Weights that PyTorch saved with torch.save(model.state_dict(), path): *.pth, *.pt.
// Source: torch/serialization.py and torch/_utils.py of github.com/pytorch/pytorch.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {

// Whether a file begins as torch.save writes it: a zip archive, or, before PyTorch 1.6, pickles.
bool IsTorchFile(std::span<const uint8_t> first_bytes);

// Floating-point tensors as float32, under their names without the prefix "module." of DataParallel; integers
// are skipped. Takes the dictionary itself, or its entry "state_dict", "model_state_dict" or "model".
// Executes nothing (pickle.h). DataLoss: damaged or truncated. Unimplemented: not a dictionary of dense,
// contiguous tensors, for example a pickled module. `path` is for messages.
absl::StatusOr<Weights> ParseTorchFile(std::span<const uint8_t> bytes, const std::string& path);

}  // namespace deeper
