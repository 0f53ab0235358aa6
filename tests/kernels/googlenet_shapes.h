// The 3x3 and 5x5 convolutions of trainer/googlenet.cpp at 224 pixels, all of stride 1 and "same" padding,
// each once.
#pragma once

#include <cstdint>

namespace deeper::testing {

struct ConvolutionShape {
  int64_t size, c, k, kernel;
};
constexpr ConvolutionShape kGoogLeNetShapes[] = {
    {56, 64, 192, 3},                     // conv3
    {28, 96, 128, 3},  {28, 16, 32, 5},   // 3a
    {28, 128, 192, 3}, {28, 32, 96, 5},   // 3b
    {14, 96, 208, 3},  {14, 16, 48, 5},   // 4a
    {14, 112, 224, 3}, {14, 24, 64, 5},   // 4b; the 5x5 of 4c, too
    {14, 128, 256, 3},                    // 4c
    {14, 144, 288, 3}, {14, 32, 64, 5},   // 4d
    {14, 160, 320, 3}, {14, 32, 128, 5},  // 4e
    {7, 160, 320, 3},  {7, 32, 128, 5},   // 5a
    {7, 192, 384, 3},  {7, 48, 128, 5},   // 5b
};

}  // namespace deeper::testing
