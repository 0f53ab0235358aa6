#include "trainer/run/config.h"

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

TEST(ValidateTest, EveryWayBetweenGpusIsValidThere) {
  for (const char* comm : {"auto", "nccl", "mpi"}) {
    RunConfig config = Valid();
    config.device = "cuda";
    config.comm = comm;
    EXPECT_TRUE(Validate(config).ok()) << comm;
    EXPECT_NE(BucketBytesOf(config), kTunedBuckets) << "what is recorded stays as it is";
  }
  EXPECT_EQ(BucketBytesOf(Valid()), kTunedBuckets);
}

TEST(ConfigureInput, DistortionsComeWithInceptionUnlessToldOtherwise) {
  RunConfig config = Valid();
  LoaderOptions options;
  ConfigureTrainingInput(config, options);
  EXPECT_EQ(options.color_jitter, 0);
  config.augment = "inception";
  ConfigureTrainingInput(config, options);
  EXPECT_EQ(options.color_jitter, 0.5);
  config.color_jitter = 0;
  ConfigureTrainingInput(config, options);
  EXPECT_EQ(options.color_jitter, 0);
}

TEST(ConfigureInput, BvlcIsBgrLessCaffesMean) {
  RunConfig config = Valid();
  config.val_preset = "bvlc";
  LoaderOptions train, eval;
  ConfigureTrainingInput(config, train);
  ConfigureEvaluationInput(config, eval);
  EXPECT_TRUE(train.bgr && eval.bgr);
  EXPECT_EQ(train.augment, Augment::kNone);
  EXPECT_EQ(eval.augment, Augment::kBvlc);
  DatasetInfo data;
  data.channels = 3;
  const PixelStats stats = *PixelStatsFor(config, data);
  EXPECT_FLOAT_EQ(stats.mean[0] * 255, 104);
  EXPECT_FLOAT_EQ(stats.stddev[2] * 255, 1);
  data.channels = 1;
  EXPECT_THAT(PixelStatsFor(config, data).status().ToString(), HasSubstr("--val_preset=bvlc"));
}

TEST(ValidateTest, EachMistakeIsNamed) {
  const Mistake mistakes[] = {
      {[](RunConfig& c) { c.global_batch = 0; }, "--global_batch=0"},
      {[](RunConfig& c) { c.precision = "fp16"; }, "--precision=fp16: must be one of fp32, bf16"},
      {[](RunConfig& c) { c.augment = "mixup"; },
       "--augment=mixup: must be one of none, flip, crop, inception"},
      {[](RunConfig& c) { c.val_preset = "caffe"; },
       "--val_preset=caffe: must be one of none, torchvision, bvlc"},
      {[](RunConfig& c) { c.color_jitter = -0.5; }, "--color_jitter=-0.5: must be between 0 and 1, or -1"},
      {[](RunConfig& c) { c.random_erasing = 1.5; }, "--random_erasing=1.5: must be between 0 and 1"},
      {[](RunConfig& c) { c.mixup = -1; }, "--mixup=-1: must be between 0 (none) and 4"},
      {[](RunConfig& c) { c.cutmix = 5; }, "--cutmix=5: must be between 0 (none) and 4"},
      {[](RunConfig& c) { c.label_smoothing = 1; }, "--label_smoothing=1: must be at least 0 and below 1"},
      {[](RunConfig& c) { c.order = "random"; }, "--order=random: must be one of full, block, sequential"},
      {[](RunConfig& c) { c.optimizer = "adam"; }, "--optimizer=adam"},
      {[](RunConfig& c) { c.lr = -1; }, "--lr=-1"},
      {[](RunConfig& c) { c.momentum = 1; }, "--momentum=1"},
      {[](RunConfig& c) { c.resume = "yesterday"; }, "--resume=yesterday"},
      {[](RunConfig& c) { c.resume = "-3"; }, "--resume=-3"},
      {[](RunConfig& c) { c.mean = "0.5,half"; }, "--mean=0.5,half"},
      {[](RunConfig& c) { c.device = "gpu"; }, "--device=gpu: must be one of cpu, cuda"},
      {[](RunConfig& c) { c.threads = -1; }, "--threads=-1"},
      {[](RunConfig& c) { c.wire = "fp8"; }, "--wire=fp8: must be one of fp32, bf16"},
      {[](RunConfig& c) { c.wire = "bf16", c.deterministic = "true"; },
       "--wire=bf16: not with --deterministic=true"},
      {[](RunConfig& c) { c.wire = "bf16", c.device = "cuda"; },
       "--wire=bf16: NCCL would round every partial sum; with --device=cuda it takes --comm=mpi"},
      {[](RunConfig& c) { c.all_reduce = "ring"; }, "--all_reduce=ring: must be one of auto, mpi"},
      {[](RunConfig& c) { c.comm = "nccl"; }, "--comm=nccl: NCCL needs --device=cuda"},
      {[](RunConfig& c) { c.shard_optimizer = true, c.device = "cuda"; },
       "--shard_optimizer: not with --device=cuda"},
      {[](RunConfig& c) { c.sync_bn = true, c.device = "cuda"; }, "--sync_bn: not with --device=cuda"},
      {[](RunConfig& c) { c.synthetic = false; }, "--data=DIR"},
      {[](RunConfig& c) { c.data = "somewhere"; }, "either --data=DIR"},
  };
  for (const Mistake& mistake : mistakes) {
    RunConfig config = Valid();
    mistake.make(config);
    EXPECT_THAT(Validate(config).ToString(), HasSubstr(mistake.message));
  }
}

RunConfig Elastic() {
  RunConfig config = Valid();
  config.deterministic = "elastic";
  config.threads = 1;
  return config;
}

TEST(ValidateTest, WhatElasticRunsNeed) {
  const Mistake mistakes[] = {
      {[](RunConfig& c) { c.threads = 0; }, "give --threads"},
      {[](RunConfig& c) { c.elastic_slices = 0; }, "--elastic_slices=0 is no power of two"},
      {[](RunConfig& c) { c.elastic_slices = 12; }, "--elastic_slices=12 is no power of two"},
      {[](RunConfig& c) { c.global_batch = 7; }, "--global_batch=7 is less than --elastic_slices=8"},
      {[](RunConfig& c) { c.micro_batch = 4; }, "takes the place of --micro_batch"},
      {[](RunConfig& c) { c.device = "cuda"; }, "--device=cpu"},
  };
  EXPECT_TRUE(Validate(Elastic()).ok());
  for (const Mistake& mistake : mistakes) {
    RunConfig config = Elastic();
    mistake.make(config);
    EXPECT_THAT(Validate(config).ToString(), HasSubstr(mistake.message));
  }
}

TEST(ValidateElasticTest, RanksAndNetwork) {
  for (const int ranks : {1, 2, 4, 8}) EXPECT_TRUE(ValidateElastic(Elastic(), ranks, false).ok());
  for (const int ranks : {3, 6, 16})
    EXPECT_THAT(ValidateElastic(Elastic(), ranks, false).ToString(), HasSubstr("a power of two, at most"));
  EXPECT_THAT(ValidateElastic(Elastic(), 2, true).ToString(), HasSubstr("batch normalisation"));
  EXPECT_TRUE(ValidateElastic(Valid(), 3, true).ok()) << "whoever does not ask for it need not care";
}

TEST(BucketBytesOfTest, FixedWhereTheyCouldChangeBits) {
  RunConfig config = Valid();
  EXPECT_EQ(BucketBytesOf(config), kTunedBuckets);
  EXPECT_EQ(BucketBytesOf(Elastic()), kTunedBuckets);
  config.deterministic = "true";
  EXPECT_EQ(BucketBytesOf(config), size_t{8} << 20);
  config.bucket_mib = 0.5;
  EXPECT_EQ(BucketBytesOf(config), size_t{1} << 19);
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
