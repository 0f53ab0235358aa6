// What is drawn for a sample: which part of the image it shows, and how it is recoloured, erased and mixed,
// apart from the pixels (resize.h), so that any device can make the same samples (kernels/ops/images.h).
#pragma once

#include "kernels/base/choice.h"
#include "kernels/base/image_sampling.h"
#include "kernels/base/rng.h"

namespace deeper {

// Drawn: kFlip: mirror left-right with probability 1/2. kCrop: kFlip + a random image_size crop, of the image
// resized (bilinear) to image_size * 8/7 on its short side, or, for images no larger than image_size, resized
// to image_size on the short side (a no-op for equal sizes) and padded by image_size / 8 zeros (the dataset
// mean) on each side. kInception: random area 8-100 %, aspect 3/4-4/3, resized, + kFlip (Szegedy et al.
// 2015).
// Always the same: kNone: resized to image_size, whole image. kTorchvision: the short side resized to
// image_size * 8/7, with antialiasing, and the middle of that, rounded as torchvision's transforms do. kBvlc:
// the whole image warped to a square of image_size * 8/7, and the middle of that.
enum class Augment { kNone, kFlip, kCrop, kInception, kTorchvision, kBvlc };
constexpr auto Choices(Augment) {
  return std::to_array<Choice<Augment>>(
      {{"none", Augment::kNone, "the whole image, resized to --image_size, bilinear, not antialiased"},
       {"flip", Augment::kFlip, "none, and half of the images are mirrored left to right"},
       {"crop", Augment::kCrop, "flip, and a random crop"},
       {"inception", Augment::kInception, "flip, and a random part of 8 to 100 % of the area, resized"},
       {"torchvision", Augment::kTorchvision,
        "the short side resized to 8/7 of --image_size, antialiased, and the middle of that"},
       {"bvlc", Augment::kBvlc,
        "the whole image resized to 8/7 of --image_size, and the middle of that; Caffe's pixels, in training "
        "too: BGR, less 104, 117, 123"}});
}

inline Filter FilterOf(Augment augment) {
  return augment == Augment::kTorchvision ? Filter::kAntialias : Filter::kBilinear;
}

// The window of one sample, `height` x `width`, to fill image_size x image_size; draws from `rng` alone.
Window DrawWindow(Augment augment, int image_size, int height, int width, Rng rng);

// Brightness, contrast and saturation, each times a factor of 1 - strength to 1 + strength, in a random order
// (Howard 2013). Contrast is that to `grey`, the same for all images. Unlike in Pillow values are cut off at
// 0 and 255 once, at the end.
ColorMatrix DrawColor(double strength, float grey, Rng rng);

// With `probability` a rectangle of 2 to 33 % of the sample and aspect 0.3 to 3.3 (Zhong et al. 2017).
PixelRect DrawErased(double probability, int image_size, Rng rng);

// mixup: the partner's weight is Beta(mixup, mixup) (Zhang et al. 2017). cutmix: the area of a rectangle is,
// before it is cut off at the edges (Yun et al. 2019). One of them is 0, or either is taken with probability
// 1/2.
Mix DrawMix(double mixup, double cutmix, int image_size, Rng rng);
constexpr double kMaxMixAlpha = 4;  // of both; drawing takes ever longer above

}  // namespace deeper
