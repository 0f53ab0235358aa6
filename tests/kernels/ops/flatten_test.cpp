#include "kernels/ops/flatten.h"

#include "tests/kernels/ops/op_test.h"

namespace deeper {
namespace {

using testing::OpDriver;
using testing::RandomValues;
using testing::TestDevice;
using testing::Values;

std::vector<TensorDesc> EveryLayout(const Shape& shape, DType dtype) {
  const int64_t block = TestDevice().channel_block(dtype);
  std::vector<TensorDesc> descs = {{shape, dtype, Layout::kNhwc}};
  if (TestDevice().type() == DeviceType::kCpu || shape.spatial() == 1) descs.push_back({shape, dtype});
  if (block > 1) descs.push_back({shape, dtype, Layout::kBlocked, block});
  return descs;
}

// A flatten only moves values: canonical x and y are the same list.
TEST(Flatten, KeepsTheCanonicalOrder) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    for (const Shape& shape : {Shape{3, 10, 7, 5}, Shape{1, 24, 1, 1}, Shape{1, 32, 3, 3}}) {
      for (const TensorDesc& desc : EveryLayout(shape, dtype)) {
        OpDriver driver(FlattenParams{}, desc, {}, TestDevice(), 2);
        EXPECT_EQ(driver.shape().y, (Shape{shape.n, shape.c * shape.h * shape.w}));
        const Values x = RandomValues(shape.elements(), 1, dtype);
        EXPECT_EQ(driver.Forward(x), x);
        Values dy = x, sum = x;
        for (float& v : sum) v *= 2;
        EXPECT_EQ(driver.Backward({dy, dy}), sum);
      }
    }
  }
}

}  // namespace
}  // namespace deeper
