// A decoded image.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/base/image_sampling.h"

namespace deeper {

struct ImageSize {
  int height = 0, width = 0;
};

// A decoded image or a part of one, HWC, 8 bits per channel.
struct Image {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;
  int x = 0, y = 0;  // position of the top left pixel in the whole image
};

// Returns the part to read of an image of this size: not empty, and inside the image. Called once per read.
using ChoosePart = absl::FunctionRef<PixelRect(ImageSize)>;
inline PixelRect ChooseAll(ImageSize size) {
  return {0, 0, size.width, size.height};
}

}  // namespace deeper
