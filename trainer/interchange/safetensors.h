// Weights as safetensors files: a JSON header, then all tensors back to back.
// Source: safetensors/src/tensor.rs of github.com/huggingface/safetensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {

// float32, under the tensors' names. The metadata are strings: format "pt", and model, num_classes and config
// as attributes of an HDF5 weights file. Replaces `path` atomically.
absl::Status WriteSafetensors(const Weights& weights, const std::string& path);

// F32, and F16, BF16 and F64 converted to float32; skips integers and booleans. DataLoss: damaged, truncated,
// or not a safetensors file, by the rules of the reference library. Unimplemented: another type. `path` is
// for messages.
absl::StatusOr<Weights> ParseSafetensors(std::span<const uint8_t> bytes, const std::string& path);

}  // namespace deeper
