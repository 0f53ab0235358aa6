#include "trainer/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

namespace deeper {
namespace {

using ::testing::HasSubstr;

RunConfig Valid() {
  RunConfig config;
  config.synthetic = true;
  config.max_steps = 1;
  return config;
}

struct Mistake {
  std::function<void(RunConfig&)> make;
  const char* message;
};

TEST(ValidateTest, DefaultsAreValid) {
  EXPECT_TRUE(Validate(Valid()).ok());
}

TEST(ValidateTest, EachMistakeIsNamed) {
  const Mistake mistakes[] = {
      {[](RunConfig& c) { c.global_batch = 0; }, "--global_batch=0"},
      {[](RunConfig& c) { c.precision = "fp16"; }, "--precision=fp16: must be one of fp32, bf16"},
      {[](RunConfig& c) { c.augment = "mixup"; },
       "--augment=mixup: must be one of none, flip, crop, inception"},
      {[](RunConfig& c) { c.order = "block"; }, "--order=block: must be one of full, sequential"},
      {[](RunConfig& c) { c.optimizer = "adam"; }, "--optimizer=adam"},
      {[](RunConfig& c) { c.lr = -1; }, "--lr=-1"},
      {[](RunConfig& c) { c.momentum = 1; }, "--momentum=1"},
      {[](RunConfig& c) { c.resume = "yesterday"; }, "--resume=yesterday"},
      {[](RunConfig& c) { c.resume = "-3"; }, "--resume=-3"},
      {[](RunConfig& c) { c.mean = "0.5,half"; }, "--mean=0.5,half"},
      {[](RunConfig& c) { c.device = "gpu"; }, "--device=gpu: must be one of cpu, cuda"},
      {[](RunConfig& c) { c.deterministic = "elastic"; }, "elastic"},
      {[](RunConfig& c) { c.synthetic = false; }, "--data=DIR"},
      {[](RunConfig& c) { c.data = "somewhere"; }, "either --data=DIR"},
  };
  for (const Mistake& mistake : mistakes) {
    RunConfig config = Valid();
    mistake.make(config);
    EXPECT_THAT(Validate(config).ToString(), HasSubstr(mistake.message));
  }
}

TEST(ModelForTest, FewerClassesThanTheDataset) {
  RunConfig config = Valid();
  config.num_classes = 5;
  DatasetInfo data;
  data.classes.resize(10);
  EXPECT_THAT(ModelFor(config, data, true).status().ToString(),
              HasSubstr("--num_classes=5: the dataset has 10 classes"));
}

TEST(PixelStatsForTest, OverridesAndCounts) {
  RunConfig config = Valid();
  config.mean = "0.1,0.2,0.3";
  DatasetInfo data;
  data.stats = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
  const auto stats = PixelStatsFor(config, data);
  ASSERT_TRUE(stats.ok());
  EXPECT_THAT(stats->mean, ::testing::ElementsAre(0.1f, 0.2f, 0.3f));
  EXPECT_THAT(stats->stddev, ::testing::ElementsAre(0.25f, 0.25f, 0.25f));
  data.channels = 1;
  EXPECT_THAT(PixelStatsFor(config, data).status().ToString(), HasSubstr("1 channel"));
  data.channels = 3;
  config.stddev = "1,0,1";
  EXPECT_THAT(PixelStatsFor(config, data).status().ToString(), HasSubstr("positive"));
}

}  // namespace
}  // namespace deeper
