// Networks as ONNX models, for inference in other programs.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "data/load/dataset.h"
#include "kernels/base/choice.h"
#include "trainer/checkpoint/weights_file.h"
#include "trainer/models/model.h"

namespace deeper {

enum class OnnxInput { kFloat, kUint8 };
constexpr auto Choices(OnnxInput) {
  return std::to_array<Choice<OnnxInput>>(
      {{"float", OnnxInput::kFloat, "float32 [N, channels, height, width], normalised by the caller"},
       {"uint8", OnnxInput::kUint8,
        "uint8 [N, height, width, channels] with values of 0 to 255; the graph normalises them"}});
}

struct OnnxOptions {
  OnnxInput input = OnnxInput::kFloat;
  PixelStats stats;  // per channel, in the order of the network's channels
  bool bgr = false;  // the network's channels are blue, green, red; a uint8 input is always red, green, blue
};

// Writes the main head of `model` with its weights: opset 13, input "images", output "logits" [N, classes],
// any N. Pads are explicit, since ceil_mode differs between programs. The metadata has the fields of
// weights.config that describe the network: strings as they are, all others as JSON. Replaces `path`
// atomically. FailedPrecondition as CheckFits (weights_file.h).
// Source: onnx/onnx.proto and docs/Operators.md of github.com/onnx/onnx.
absl::Status WriteOnnx(const Model& model, const OnnxOptions& options, const Weights& weights,
                       const std::string& path);

}  // namespace deeper
