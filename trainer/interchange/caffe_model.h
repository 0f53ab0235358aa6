// Weights of Caffe: *.caffemodel.
// Source: src/caffe/proto/caffe.proto of github.com/BVLC/caffe.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {

// Whether a file may be a NetParameter: it begins with its name or with a layer.
bool MayBeCaffeModel(std::span<const uint8_t> first_bytes);

// Layers of bvlc_googlenet get the names of googlenet-bvlc and its config; others are LAYER.weight and
// LAYER.bias. Reads networks of the present format (V2) and the one before it (V1). DataLoss: damaged,
// truncated, or without weights. Unimplemented: an older format, or a layer with other than two blobs. `path`
// is for messages.
absl::StatusOr<Weights> ParseCaffeModel(std::span<const uint8_t> bytes, const std::string& path);

}  // namespace deeper
