// TrivialAugment: one random operation of random strength for each image (Mueller and Hutter 2021, the wide
// space). The operations and their pixels are those of torchvision's TrivialAugmentWide with Pillow: nearest
// pixels, black outside.
#pragma once

#include <cstdint>

#include "data/image/image.h"
#include "kernels/base/rng.h"

namespace deeper {

enum class TrivialOp {
  kIdentity,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY,
  kRotate,
  kBrightness,
  kColor,
  kContrast,
  kSharpness,
  kPosterize,
  kSolarize,
  kAutoContrast,
  kEqualize
};
constexpr int kTrivialOps = 14;
constexpr int kTrivialStrengths = 31;

// `magnitude`: a slope for shears, whole pixels for translations, degrees for rotation, the change of the
// factor 1 for the four colour operations, bits to keep for posterize, the threshold for solarize.
struct TrivialChange {
  TrivialOp op = TrivialOp::kIdentity;
  double magnitude = 0;
};

// The change of strength 0 to kTrivialStrengths - 1. `negative` turns geometric and colour operations around.
TrivialChange MakeTrivialChange(TrivialOp op, int strength, bool negative);
// All operations, strengths and signs with equal probability.
TrivialChange DrawTrivialChange(Rng rng);

// In place. The image is grey or RGB.
void Apply(const TrivialChange& change, Image* image);

}  // namespace deeper
