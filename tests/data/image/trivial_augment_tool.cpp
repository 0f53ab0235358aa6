// trivial_augment_tool HEIGHT WIDTH CHANNELS < PIXELS: prints the pixels after each change of TrivialAugment:
// for every operation, every strength, positive, then negative.
#include <cstdio>
#include <cstdlib>

#include "data/image/trivial_augment.h"

int main(int, char** arguments) {
  deeper::Image image{std::atoi(arguments[1]), std::atoi(arguments[2]), std::atoi(arguments[3]), {}};
  image.pixels.resize(static_cast<size_t>(image.height * image.width * image.channels));
  if (std::fread(image.pixels.data(), 1, image.pixels.size(), stdin) != image.pixels.size()) return 1;
  for (int op = 0; op < deeper::kTrivialOps; ++op) {
    for (int strength = 0; strength < deeper::kTrivialStrengths; ++strength) {
      for (const bool negative : {false, true}) {
        deeper::Image changed = image;
        Apply(MakeTrivialChange(static_cast<deeper::TrivialOp>(op), strength, negative), &changed);
        std::fwrite(changed.pixels.data(), 1, changed.pixels.size(), stdout);
      }
    }
  }
}
