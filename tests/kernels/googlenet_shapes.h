// Convolutions of trainer/models/googlenet.cpp at 224 pixels, all with stride 1 and "same" padding, without
// repetition.
#pragma once

#include <cstdint>

namespace deeper::testing {

struct ConvolutionShape {
  int64_t size, c, k, kernel;
};
// The 3x3 and 5x5.
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
// The 1x1 after the pool of an Inception module.
constexpr ConvolutionShape kPoolBranches[] = {
    {28, 192, 32, 1},  {28, 256, 64, 1},  // 3a, 3b
    {14, 480, 64, 1},  {14, 512, 64, 1},  // 4a, 4b to 4d
    {14, 528, 128, 1}, {7, 832, 128, 1},  // 4e, 5a and 5b
};

}  // namespace deeper::testing
