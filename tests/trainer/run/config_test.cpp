#include "trainer/run/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <set>
#include <string_view>

#include "trainer/run/inputs.h"

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
  for (const Transport comm : {Transport::kAuto, Transport::kNccl, Transport::kMpi}) {
    RunConfig config = Valid();
    config.device = DeviceType::kCuda;
    config.comm = comm;
    EXPECT_TRUE(Validate(config).ok()) << NameOf(comm);
    EXPECT_NE(BucketBytesOf(config), kTunedBuckets) << "what is recorded stays as it is";
  }
  EXPECT_EQ(BucketBytesOf(Valid()), kTunedBuckets);
}

TEST(ConfigureInput, DistortionsComeWithInceptionUnlessToldOtherwise) {
  RunConfig config = Valid();
  LoaderOptions options;
  ConfigureTrainingInput(config, options);
  EXPECT_EQ(options.color_jitter, 0);
  config.augment = Augment::kInception;
  ConfigureTrainingInput(config, options);
  EXPECT_EQ(options.color_jitter, 0.5);
  config.color_jitter = 0;
  ConfigureTrainingInput(config, options);
  EXPECT_EQ(options.color_jitter, 0);
}

TEST(ConfigureInput, BvlcIsBgrLessCaffesMean) {
  RunConfig config = Valid();
  config.val_preset = Augment::kBvlc;
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
      {[](RunConfig& c) { c.model = "googlenot"; }, "--model=googlenot: must be one of googlenet, "},
      {[](RunConfig& c) { c.precision = DType::kU8; }, "--precision=: must be one of auto, fp32, bf16"},
      {[](RunConfig& c) { c.augment = Augment::kBvlc; },
       "--augment=: must be one of none, flip, crop, inception"},
      {[](RunConfig& c) { c.val_preset = Augment::kFlip; },
       "--val_preset=: must be one of none, torchvision, bvlc"},
      {[](RunConfig& c) { c.stem = kNotGiven<Stem>; }, "--stem=: must be one of default, medium, small"},
      {[](RunConfig& c) { c.color_jitter = -0.5; }, "--color_jitter=-0.5: must be between 0 and 1, or -1"},
      {[](RunConfig& c) { c.random_erasing = 1.5; }, "--random_erasing=1.5: must be between 0 and 1"},
      {[](RunConfig& c) { c.mixup = -1; }, "--mixup=-1: must be between 0 (none) and 4"},
      {[](RunConfig& c) { c.cutmix = 5; }, "--cutmix=5: must be between 0 (none) and 4"},
      {[](RunConfig& c) { c.label_smoothing = 1; }, "--label_smoothing=1: must be "},
      {[](RunConfig& c) { c.lr = -1; }, "--lr=-1: must be positive"},
      {[](RunConfig& c) { c.lr = std::nan(""); }, "--lr=nan"},
      {[](RunConfig& c) { c.lr = 1e7; }, "--lr=10000000: must be at most 1e+06"},
      {[](RunConfig& c) { c.lr_min = 1; }, "--lr_min=1: must be at most --lr=0.01"},
      {[](RunConfig& c) { c.max_steps = -1; }, "--max_steps=-1: must be 0 (until --epochs) or more"},
      {[](RunConfig& c) { c.momentum = 1; }, "--momentum=1"},
      {[](RunConfig& c) { c.resume = "yesterday"; }, "--resume=yesterday"},
      {[](RunConfig& c) { c.resume = "-3"; }, "--resume=-3"},
      {[](RunConfig& c) { c.mean = "0.5,half"; }, "--mean=0.5,half"},
      {[](RunConfig& c) { c.threads = -1; }, "--threads=-1"},
      {[](RunConfig& c) { c.wire = DType::kBf16, c.deterministic = Determinism::kTrue; },
       "--wire=bf16: not supported with --deterministic=true"},
      {[](RunConfig& c) { c.wire = DType::kBf16, c.device = DeviceType::kCuda; },
       "--wire=bf16: NCCL would round every partial sum; with --device=cuda, use --comm=mpi"},
      {[](RunConfig& c) { c.comm = Transport::kNccl; }, "--comm=nccl: NCCL needs --device=cuda"},
      {[](RunConfig& c) { c.synthetic = false; }, "--data=DIR"},
      {[](RunConfig& c) { c.data = "somewhere"; }, "either --data=DIR"},
  };
  for (const Mistake& mistake : mistakes) {
    RunConfig config = Valid();
    mistake.make(config);
    EXPECT_THAT(Validate(config).ToString(), HasSubstr(mistake.message));
  }
}

// The flag of this name.
const Flag& Named(const std::vector<FlagGroup>& groups, std::string_view name) {
  for (const FlagGroup& group : groups) {
    for (const Flag& flag : group.flags) {
      if (flag.name == name) return flag;
    }
  }
  ADD_FAILURE() << name;
  return groups[0].flags[0];
}

TEST(ConfigFlagsTest, SetFieldsOrNameTheMistake) {
  RunConfig config;
  const std::vector<FlagGroup> flags = ConfigFlags(config);
  EXPECT_TRUE(Named(flags, "augment").Set("crop").ok());
  EXPECT_EQ(config.augment, Augment::kCrop);
  EXPECT_EQ(Named(flags, "augment").ValueText(), "crop");
  EXPECT_TRUE(Named(flags, "val_preset").Set("bvlc").ok());
  EXPECT_EQ(config.val_preset, Augment::kBvlc);
  EXPECT_TRUE(Named(flags, "color_jitter").Set("-1").ok());
  EXPECT_TRUE(Named(flags, "seed").Set("18446744073709551615").ok());
  EXPECT_EQ(config.seed, std::numeric_limits<uint64_t>::max());
  const struct {
    const char *flag, *value, *message;
  } mistakes[] = {
      {"augment", "mixup", "--augment=mixup: must be one of none, flip, crop, inception"},
      {"val_preset", "flip", "--val_preset=flip: must be one of none, torchvision, bvlc"},
      {"order", "random", "--order=random: must be one of full, block, sequential"},
      {"order", "blok", "(did you mean block?)"},
      {"model", "googlenot", "(did you mean googlenet?)"},
      {"optimizer", "adam", "--optimizer=adam: must be one of sgd, nesterov, lars"},
      {"wire", "fp8", "--wire=fp8: must be one of fp32, bf16"},
      {"epochs", "1.5", "--epochs=1.5: must be an integer, 0 (until --max_steps) or more"},
      {"workers", "1025", "--workers=1025: must be between 0 (adaptive"},
      {"lr", "fast", "--lr=fast: must be a number, positive"},
      {"lr", "inf", "--lr=inf: must be a number, positive"},
      {"lr", "nan", "--lr=nan: must be a number, positive"},
      {"lr", "0", "--lr=0: must be positive"},
      {"lr", "1e7", "--lr=1e7: must be at most 1e+06"},
      {"global_batch", "1000000000000000", "--global_batch=1000000000000000: must be at most 1e+06"},
      {"lr_step_epochs", "0", "--lr_step_epochs=0: must be positive"},
      {"color_jitter", "-0.5", "must be between 0 and 1, or -1 (0.5 with --augment=inception, else 0)"},
      {"aux", "maybe", "--aux=maybe: must be true or false"},
  };
  for (const auto& [name, value, message] : mistakes) {
    const Flag& flag = Named(flags, name);
    const std::string before = flag.ValueText();
    EXPECT_THAT(std::string(flag.Set(value).message()), HasSubstr(message));
    EXPECT_EQ(flag.ValueText(), before);
  }
}

TEST(ConfigFlagsTest, NamesAndFieldsAreDistinct) {
  RunConfig config;
  std::set<std::string> names;
  for (const FlagGroup& group : ConfigFlags(config)) {
    for (const Flag& flag : group.flags) EXPECT_TRUE(names.insert(flag.name).second) << flag.name;
  }
}

TEST(NetworkJsonTest, FillsInWhatFlagsLeaveOpen) {
  RunConfig trained = Valid();
  trained.model = "nin-cifar";
  trained.stem = Stem::kSmall;
  trained.val_preset = Augment::kTorchvision;
  DatasetInfo data;
  data.classes = {"cat", "dog"};
  Model model;
  model.name = trained.model;
  model.num_classes = 2;
  const nlohmann::json json = NetworkJson(trained, model, data, {{0.5f}, {0.25f}});
  EXPECT_EQ(json["stem"], "small");
  EXPECT_EQ(json["val_preset"], "torchvision");
  RunConfig open;
  open.model.clear();
  open.stem = kNotGiven<Stem>;  // val_preset was given
  const absl::StatusOr<DatasetInfo> read = ReadNetworkJson(json, open);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(open.model, "nin-cifar");
  EXPECT_EQ(open.stem, Stem::kSmall);
  EXPECT_EQ(open.val_preset, Augment::kNone);
  EXPECT_EQ(open.num_classes, 2);
  EXPECT_EQ(read->classes, data.classes);
  nlohmann::json unknown = json;
  unknown["stem"] = "huge";
  open.stem = kNotGiven<Stem>;
  EXPECT_THAT(ReadNetworkJson(unknown, open).status().ToString(), HasSubstr("huge"));
}

TEST(NetworkJsonTest, NamesTheFlagsForWhatAFileDoesNotSay) {
  RunConfig open;
  open.model.clear();
  open.mean = "0.5,0.5,0.5";
  EXPECT_THAT(ReadNetworkJson({{"num_classes", 10}}, open).status().ToString(),
              HasSubstr("pass --model, --std"));
  open.model = "nin";
  open.stddev = "1,1,1";
  const absl::StatusOr<DatasetInfo> read = ReadNetworkJson({{"num_classes", 10}}, open);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(open.num_classes, 10);
  EXPECT_EQ(read->channels, 3);
  EXPECT_TRUE(read->classes.empty());
}

TEST(ConfigTest, ListsOfNumbersAreFinite) {
  EXPECT_TRUE(ParseNumbers("mean", "0.5,1").ok());
  for (const char* text : {"nan", "0.5,inf", "-inf", "1e60", "x"})
    EXPECT_THAT(ParseNumbers("mean", text).status().ToString(), HasSubstr("finite numbers")) << text;
}

RunConfig Elastic() {
  RunConfig config = Valid();
  config.deterministic = Determinism::kElastic;
  config.threads = 1;
  return config;
}

TEST(ValidateTest, WhatElasticRunsNeed) {
  const Mistake mistakes[] = {
      {[](RunConfig& c) { c.threads = 0; }, "set --threads"},
      {[](RunConfig& c) { c.elastic_slices = 0; }, "--elastic_slices=0: must be at least 1"},
      {[](RunConfig& c) { c.elastic_slices = 12; }, "--elastic_slices=12 is not a power of two"},
      {[](RunConfig& c) { c.global_batch = 7; }, "--global_batch=7 is less than --elastic_slices=8"},
      {[](RunConfig& c) { c.micro_batch = 4; }, "replaces --micro_batch"},
  };
  EXPECT_TRUE(Validate(Elastic()).ok());
  RunConfig on_gpus = Elastic();
  on_gpus.device = DeviceType::kCuda;
  on_gpus.threads = 0;
  EXPECT_TRUE(Validate(on_gpus).ok()) << "threads do not change the results of a GPU";
  for (const Mistake& mistake : mistakes) {
    RunConfig config = Elastic();
    mistake.make(config);
    EXPECT_THAT(Validate(config).ToString(), HasSubstr(mistake.message));
  }
}

TEST(ValidateForTest, RanksAndNetwork) {
  for (const int ranks : {1, 2, 4, 8}) EXPECT_TRUE(ValidateFor(Elastic(), ranks, false).ok());
  for (const int ranks : {3, 6, 16})
    EXPECT_THAT(ValidateFor(Elastic(), ranks, false).ToString(), HasSubstr("a power of two, at most"));
  EXPECT_THAT(ValidateFor(Elastic(), 2, true).ToString(), HasSubstr("batch normalisation"));
  RunConfig small = Valid();
  small.global_batch = 2;
  EXPECT_TRUE(ValidateFor(small, 3, false).ok());
  EXPECT_THAT(ValidateFor(small, 3, true).ToString(), HasSubstr("--global_batch=2 is smaller than"));
  small.sync_bn = true;
  EXPECT_TRUE(ValidateFor(small, 3, true).ok());
  EXPECT_THAT(ValidateFor(small, 3, false).ToString(), HasSubstr("has no batch normalisation"));
  EXPECT_TRUE(ValidateFor(Valid(), 3, true).ok()) << "only elastic runs have these limits";
}

TEST(BucketBytesOfTest, FixedWhereTheyCouldChangeBits) {
  RunConfig config = Valid();
  EXPECT_EQ(BucketBytesOf(config), kTunedBuckets);
  EXPECT_EQ(BucketBytesOf(Elastic()), kTunedBuckets);
  config.deterministic = Determinism::kTrue;
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
