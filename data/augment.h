// Which part of an image becomes a sample: the geometry of resizing, cropping and mirroring, apart from the
// pixels (resize.h), so that any device can sample the same windows (kernels/images.h).
#pragma once

#include "kernels/images.h"
#include "kernels/rng.h"

namespace deeper {

// kFlip: mirror left-right with probability 1/2. kCrop: kFlip + a random image_size crop, of the image
// resized (bilinear) to image_size * 8/7 on its short side, or, for images no larger than image_size, resized
// to image_size on the short side (a no-op for equal sizes) and padded by image_size / 8 zeros (the dataset
// mean) on each side. kInception: random area 8-100 %, aspect 3/4-4/3, resized, + kFlip (Szegedy et al.
// 2015). kNone: resized to image_size (bilinear, half-pixel centres, no antialias), whole image.
enum class Augment { kNone, kFlip, kCrop, kInception };

// The window of one sample, `height` x `width`, that is to fill image_size x image_size; draws from `rng`
// alone.
Window DrawWindow(Augment augment, int image_size, int height, int width, Rng rng);

}  // namespace deeper
