#include "kernels/ops/ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "tests/kernels/test_device.h"

namespace deeper::testing {
namespace {

using ::testing::ElementsAre;

const std::vector<OpParams> kSomeOps = {Conv2dParams{.out_channels = 16},
                                        InceptionParams{.c1 = 16, .c2 = 16, .c3 = 16},
                                        PoolParams{},
                                        GlobalAvgPoolParams{},
                                        LrnParams{},
                                        DropoutParams{},
                                        FlattenParams{},
                                        LinearParams{10}};

template <size_t... kIndexes>
std::set<std::string_view> Kinds(std::index_sequence<kIndexes...>) {
  return {KindOf(std::variant_alternative_t<kIndexes, OpParams>{})...};
}

TEST(Ops, HaveNamesOfTheirOwn) {
  constexpr size_t kOps = std::variant_size_v<OpParams>;
  const std::set<std::string_view> kinds = Kinds(std::make_index_sequence<kOps>());
  EXPECT_EQ(kinds.size(), kOps);
  EXPECT_FALSE(kinds.contains(""));
}

TEST(Ops, TellTheirKind) {
  std::vector<std::string_view> kinds;
  std::vector<bool> takes_slices;
  for (const OpParams& params : kSomeOps) {
    kinds.push_back(KindOf(params));
    takes_slices.push_back(TakesSlices(params));
  }
  EXPECT_THAT(kinds, ElementsAre("conv2d", "inception", "max_pool", "global_avg_pool", "lrn", "dropout",
                                 "flatten", "linear"));
  EXPECT_THAT(takes_slices, ElementsAre(true, true, true, true, false, false, false, false));
  EXPECT_EQ(KindOf(PoolParams{.kind = PoolParams::Kind::kAverage}), "avg_pool");
}

TEST(Ops, MakeWhatTheyInfer) {
  Device& device = TestDevice();
  for (const OpParams& params : kSomeOps) {
    const bool vector = std::holds_alternative<LinearParams>(params);
    const Shape shape = vector ? Shape{2, 16} : Shape{2, 16, 6, 6};
    const TensorDesc x = vector ? TensorDesc{shape} : device.FeatureMap(shape, DType::kF32);
    const auto op = MakeOp(params, x, {.name = "op"}, device);
    ASSERT_TRUE(op.ok()) << KindOf(params) << ": " << op.status();
    const OpShape inferred = InferOp(params, shape).value();
    EXPECT_EQ((*op)->needs().y.shape, inferred.y) << KindOf(params);
    EXPECT_EQ((*op)->needs().params.size(), inferred.params.size()) << KindOf(params);
  }
}

TEST(Ops, ChecksCanBeLeftOut) {
  const OpShape shape;
  const TensorDesc x;
  const OpOptions options;
  const OpSetup setup = {shape, x, options, TestDevice()};
  EXPECT_TRUE(Check(FlattenParams{}, setup).ok());
  EXPECT_FALSE(Check(LrnParams{}, setup).ok());
}

}  // namespace
}  // namespace deeper::testing
