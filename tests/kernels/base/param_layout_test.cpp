// Tests of PackParam and UnpackParam (op.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/base/op.h"

namespace deeper {
namespace {

ParamSpec Weight(std::vector<int64_t> shape) {
  return {"weight", std::move(shape)};
}

std::vector<float> Counting(const ParamSpec& spec) {
  std::vector<float> values(static_cast<size_t>(spec.elements()));
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

TEST(ParamLayout, PlainIsACopy) {
  const ParamSpec spec = Weight({3, 5});
  const ParamLayout layout = MakeParamLayout(spec, 1);
  ASSERT_EQ(layout.stored_elements, 15);
  const std::vector<float> canonical = Counting(spec);
  std::vector<float> stored(15, -1), again(15, -1);
  PackParam(spec, layout, canonical.data(), stored.data());
  EXPECT_EQ(stored, canonical);
  UnpackParam(spec, layout, stored.data(), again.data());
  EXPECT_EQ(again, canonical);
}

// OIhw{b}i{b}o by definition: [O/b][I/b][h][w][i within the block][o within the block], zeros elsewhere.
TEST(ParamLayout, BlocksAndPads) {
  const ParamSpec spec = Weight({10, 24, 3, 2});
  for (const int64_t b : {8, 16}) {
    const ParamLayout layout = MakeParamLayout(spec, b);
    const int64_t input_blocks = (24 + b - 1) / b, output_blocks = (10 + b - 1) / b;
    ASSERT_EQ(layout.stored_elements, output_blocks * b * input_blocks * b * 6);
    const std::vector<float> canonical = Counting(spec);
    std::vector<float> stored(static_cast<size_t>(layout.stored_elements), -1), again(canonical.size(), -1);
    PackParam(spec, layout, canonical.data(), stored.data());
    size_t at = 0;
    for (int64_t ob = 0; ob < output_blocks; ++ob) {
      for (int64_t ib = 0; ib < input_blocks; ++ib) {
        for (int64_t tap = 0; tap < 6; ++tap) {
          for (int64_t i = ib * b; i < (ib + 1) * b; ++i) {
            for (int64_t o = ob * b; o < (ob + 1) * b; ++o) {
              const bool padding = o >= 10 || i >= 24;
              ASSERT_EQ(stored[at++], padding ? 0 : canonical[static_cast<size_t>((o * 24 + i) * 6 + tap)]);
            }
          }
        }
      }
    }
    UnpackParam(spec, layout, stored.data(), again.data());
    EXPECT_EQ(again, canonical);
  }
}

TEST(ParamSpec, Fans) {
  EXPECT_EQ(Weight({64, 32, 3, 3}).fan_in(), 32 * 9);
  EXPECT_EQ(Weight({64, 32, 3, 3}).fan_out(), 64 * 9);
  EXPECT_EQ(Weight({1000, 1024}).fan_in(), 1024);
  EXPECT_EQ(Weight({1000, 1024}).fan_out(), 1000);
}

}  // namespace
}  // namespace deeper
