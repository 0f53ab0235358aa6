// Draws the random choices for a sample: the part of the image to show, and how to recolour, erase and mix
// it. Does not touch pixels (resize.h does), so every device makes the same samples (kernels/ops/images.h).
#pragma once

#include "kernels/base/choice.h"
#include "kernels/base/image_sampling.h"
#include "kernels/base/rng.h"

namespace deeper {

// Random: kFlip mirrors left to right with probability 1/2. kCrop is kFlip plus a random image_size crop. It
// resizes larger images (bilinear) to a short side of image_size * 8/7. It resizes images no larger than
// image_size to a short side of image_size (a no-op for equal sizes), and pads image_size / 8 zeros (the
// dataset mean) on each side. kInception resizes a random part of 8-100 % of the area with aspect 3/4-4/3,
// plus kFlip (Szegedy et al. 2015).
// Fixed: kNone resizes the whole image to image_size. kTorchvision resizes the short side to image_size *
// 8/7, with antialiasing, and crops the middle; it rounds as torchvision's transforms do. kBvlc warps the
// whole image to a square of image_size * 8/7 and crops the middle.
enum class Augment { kNone, kFlip, kCrop, kInception, kTorchvision, kBvlc };
constexpr auto Choices(Augment) {
  return std::to_array<Choice<Augment>>(
      {{"none", Augment::kNone, "the whole image, resized to --image_size, bilinear, not antialiased"},
       {"flip", Augment::kFlip, "as none, and mirrors half of the images left to right"},
       {"crop", Augment::kCrop, "as flip, with a random crop"},
       {"inception", Augment::kInception, "as flip, with a random part of 8 to 100 % of the area, resized"},
       {"torchvision", Augment::kTorchvision,
        "the short side resized to 8/7 of --image_size, antialiased, then the middle cropped"},
       {"bvlc", Augment::kBvlc,
        "the whole image resized to 8/7 of --image_size, then the middle cropped; Caffe's pixel format, in "
        "training too: BGR, minus 104, 117, 123"}});
}

// Whether a random augmentation mirrors an image: a coin for each image and epoch, or one coin for each
// image, whose result changes with every epoch, so that two epochs show it both ways (Jordan, "94 % on
// CIFAR-10 in 3.29 seconds", 2024).
enum class Flip { kRandom, kAlternate };
constexpr auto Choices(Flip) {
  return std::to_array<Choice<Flip>>(
      {{"random", Flip::kRandom, "mirrors an image with probability 1/2 in every epoch"},
       {"alternate", Flip::kAlternate, "mirrors half of the images in one epoch, the others in the next"}});
}

inline bool MirrorsHalf(Augment augment) {
  return augment == Augment::kFlip || augment == Augment::kCrop || augment == Augment::kInception;
}

inline Filter FilterOf(Augment augment) {
  return augment == Augment::kTorchvision ? Filter::kAntialias : Filter::kBilinear;
}

// The window of one `height` x `width` sample that fills image_size x image_size. Draws from `rng` alone.
Window DrawWindow(Augment augment, int image_size, int height, int width, Rng rng);

// Flip::kAlternate. `rng` is that of the sample in every epoch.
bool DrawAlternateFlip(Rng rng, uint32_t epoch);

// Scales brightness, contrast and saturation, each by a factor of 1 - strength to 1 + strength, in a random
// order (Howard 2013). Contrast is relative to `grey`, which is the same for all images. Unlike Pillow, clips
// values to 0 and 255 once, at the end.
ColorMatrix DrawColor(double strength, float grey, Rng rng);

// Adds the same random colour to all pixels: along the principal components of the colours of ImageNet, each
// times a normal number of this standard deviation and the component's own (Krizhevsky et al. 2012).
ColorMatrix DrawLighting(double deviation, Rng rng);

// Applies b, then a.
ColorMatrix Compose(const ColorMatrix& a, const ColorMatrix& b);

// With `probability`, a rectangle of 2 to 33 % of the sample's area and aspect 0.3 to 3.3 (Zhong et al.
// 2017).
PixelRect DrawErased(double probability, int image_size, Rng rng);

// mixup: the partner's weight has the distribution Beta(mixup, mixup) (Zhang et al. 2017). cutmix: so has the
// area of the pasted rectangle, before clipping at the edges (Yun et al. 2019). If neither is 0, picks one of
// them with probability 1/2.
Mix DrawMix(double mixup, double cutmix, int image_size, Rng rng);
constexpr double kMaxMixAlpha = 4;  // of both; drawing is too slow above it

}  // namespace deeper
