#include "trainer/checkpoint/weights_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/agree.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/status.h"
#include "tests/comm/threads_communicator.h"
#include "tests/trainer/checkpoint/example_params.h"
#include "tests/trainer/checkpoint/save_checkpoint.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// As runs do it: rank 0 reads for all.
absl::StatusOr<std::vector<std::string>> LoadFrom(const std::string& path, ParamStore& params,
                                                  Communicator& comm, int64_t new_classes = 0) {
  const absl::StatusOr<Weights> weights = comm.rank() == 0 ? ReadWeights(path) : Weights();
  RETURN_IF_ERROR(Agree(comm, weights.status()));
  return LoadWeights(*weights, params, comm, new_classes);
}

class WeightsFileTest : public ::testing::Test {
 protected:
  WeightsFileTest()
      : directory_(::testing::TempDir() + "weights_" + std::to_string(getpid()) + "_" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name()),
        file_(directory_ + "/weights.h5") {
    fs::remove_all(directory_);
    params_.Fill(1, ExampleParams::kFinite);
    const TrainState state{3, {}, {{"model", "nin"}, {"num_classes", 10}}};
    EXPECT_TRUE(SaveCheckpoint(directory_, state, params_.store(), *single_).ok());
    EXPECT_TRUE(WriteWeights(*ReadWeights(directory_), file_).ok());
  }
  ~WeightsFileTest() override { fs::remove_all(directory_); }

  std::string directory_, file_;
  std::unique_ptr<Communicator> single_ = MakeSingleCommunicator();
  ExampleParams params_;
};

TEST_F(WeightsFileTest, HoldsOneDatasetForEachWeightAndStatistic) {
  const auto file = Hdf5File::Open(file_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->Names(), ElementsAre("aux1.fc2.weight", "conv1.bn.running_mean", "conv1.bn.weight",
                                         "conv1.conv.weight", "fc.bias", "fc.weight"));
  std::string model, config;
  int64_t classes = 0;
  ASSERT_TRUE(file->ReadAttribute("model", &model).ok());
  ASSERT_TRUE(file->ReadAttribute("num_classes", &classes).ok());
  ASSERT_TRUE(file->ReadAttribute("config", &config).ok());
  EXPECT_EQ(model, "nin");
  EXPECT_EQ(classes, 10);
  EXPECT_EQ(config, R"({"model":"nin","num_classes":10})");

  EXPECT_THAT(file->Locate("conv1.conv.weight", Hdf5Type::kF32)->shape, ElementsAre(12, 5, 3, 3));
  std::vector<float> values;
  ASSERT_TRUE(file->Read("conv1.conv.weight", &values).ok());
  const std::vector<uint32_t> expected = params_.Bits("conv1.conv.weight");
  ASSERT_EQ(values.size(), expected.size());
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)), 0);
}

TEST_F(WeightsFileTest, EveryRankGetsTheWeightsOfAFileOrACheckpoint) {
  for (const std::string& path : {file_, directory_, StepDirectory(directory_, 3)}) {
    const auto comms = MakeThreadCommunicators(2);
    std::vector<std::thread> threads;
    for (const auto& comm : comms) {
      threads.emplace_back([&, comm = comm.get()] {
        ExampleParams params({.training = false});
        const auto warnings = LoadFrom(path, params.store(), *comm);
        ASSERT_TRUE(warnings.ok()) << warnings.status();
        EXPECT_THAT(*warnings, IsEmpty());
        for (const std::string name :
             {"conv1.conv.weight", "conv1.bn.running_mean", "aux1.fc2.weight", "fc.bias"}) {
          EXPECT_EQ(params.Bits(name), params_.Bits(name)) << name;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST_F(WeightsFileTest, ANetworkWithoutAuxiliaryHeadsIgnoresTheFiles) {
  ExampleParams params({.aux = false, .training = false});
  const auto warnings = LoadFrom(file_, params.store(), *single_);
  ASSERT_TRUE(warnings.ok()) << warnings.status();
  EXPECT_THAT(*warnings, IsEmpty());
  EXPECT_EQ(params.Bits("fc.weight"), params_.Bits("fc.weight"));
}

TEST_F(WeightsFileTest, AuxiliaryHeadsThatTheFileLacksKeepTheirValues) {
  ExampleParams bare({.aux = false});
  bare.Fill(2, ExampleParams::kFinite);
  ASSERT_TRUE(
      SaveCheckpoint(directory_ + "/bare", {1, {}, nlohmann::json::object()}, bare.store(), *single_).ok());
  const std::vector<uint32_t> aux = params_.Bits("aux1.fc2.weight");
  const auto warnings = LoadFrom(directory_ + "/bare", params_.store(), *single_);
  ASSERT_TRUE(warnings.ok()) << warnings.status();
  EXPECT_THAT(*warnings, ElementsAre(HasSubstr("no auxiliary heads")));
  EXPECT_EQ(params_.Bits("aux1.fc2.weight"), aux);
  EXPECT_EQ(params_.Bits("conv1.conv.weight"), bare.Bits("conv1.conv.weight"));
}

TEST_F(WeightsFileTest, WhatDoesNotFitIsListedAndNothingChanges) {
  ExampleParams other({.classes = 4});
  other.Fill(2, ExampleParams::kFinite);
  const std::vector<uint32_t> before = other.Bits();
  const absl::Status status = LoadFrom(file_, other.store(), *single_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("fc.bias [10] in the file is fc.bias [4] in the model"),
                                     Not(HasSubstr("conv1"))));
  EXPECT_EQ(other.Bits(), before);

  Weights weights = *ReadWeights(file_);
  for (TensorEntry& tensor : weights.tensors) {
    if (tensor.name == "fc.bias") tensor.name = "fc.offset";
  }
  ASSERT_TRUE(WriteWeights(weights, file_).ok());
  EXPECT_THAT(Message(LoadFrom(file_, params_.store(), *single_).status()),
              AllOf(HasSubstr("fc.bias [10] is missing in the file"),
                    HasSubstr("fc.offset [10] is not in the model")));
}

TEST_F(WeightsFileTest, ClassifiersOfAnotherNumberOfClassesStartAnew) {
  ExampleParams other({.classes = 4});
  other.Fill(2, ExampleParams::kFinite);
  const std::vector<std::string> classifiers = {"fc.weight", "fc.bias", "aux1.fc2.weight"};
  std::vector<std::vector<uint32_t>> before;
  for (const std::string& name : classifiers) before.push_back(other.Bits(name));
  const auto warnings = LoadFrom(file_, other.store(), *single_, 4);
  ASSERT_TRUE(warnings.ok()) << warnings.status();
  EXPECT_THAT(*warnings, ElementsAre(AllOf(HasSubstr("has 10 classes, not 4: the classifiers start anew: "),
                                           HasSubstr("fc.weight"), HasSubstr("fc.bias"),
                                           HasSubstr("aux1.fc2.weight"), Not(HasSubstr("conv1")))));
  for (size_t i = 0; i < classifiers.size(); ++i) EXPECT_EQ(other.Bits(classifiers[i]), before[i]);
  EXPECT_EQ(other.Bits("conv1.conv.weight"), params_.Bits("conv1.conv.weight"));
  EXPECT_EQ(other.Bits("conv1.bn.running_mean"), params_.Bits("conv1.bn.running_mean"));
  EXPECT_FALSE(LoadFrom(file_, other.store(), *single_, 5).ok());
}

TEST_F(WeightsFileTest, AConfigOfManyClassesFits) {
  Weights weights = *ReadWeights(file_);
  weights.config["classes"] = std::vector<std::string>(21000, "a class of ImageNet-21k");
  ASSERT_TRUE(WriteWeights(weights, file_).ok());
  const absl::StatusOr<Weights> read = ReadWeights(file_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->config, weights.config);
}

TEST_F(WeightsFileTest, OtherFilesAreRefusedByName) {
  EXPECT_THAT(Message(ReadWeights(directory_ + "/none.h5").status()), HasSubstr("none.h5"));
  EXPECT_THAT(Message(ReadWeights(directory_ + "/step-000000003/shard-00000-of-00001.h5").status()),
              HasSubstr("is not a weights file"));
  fs::create_directory(directory_ + "/empty");
  EXPECT_THAT(Message(ReadWeights(directory_ + "/empty").status()),
              HasSubstr("is not a checkpoint and holds none"));
}

TEST_F(WeightsFileTest, ValuesThatAreNotFiniteAreRefusedWithTheTensorsName) {
  const Weights sound = *ReadWeights(file_);
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Weights weights = sound;
    const auto tensor = std::ranges::find(weights.tensors, "fc.bias", &TensorEntry::name);
    weights.values.at(static_cast<size_t>(tensor->first) + 2) = value;
    ASSERT_TRUE(WriteWeights(weights, file_).ok());
    const absl::Status status = ReadWeights(file_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(Message(status), AllOf(HasSubstr(file_), HasSubstr("fc.bias is not finite: its value 2 is")));
    EXPECT_FALSE(LoadFrom(file_, params_.store(), *single_).ok());
  }
}

TEST_F(WeightsFileTest, AFileNeedNotSayWhatItIs) {
  const Weights all = *ReadWeights(file_);
  Hdf5File file = *Hdf5File::Create(file_);
  file.SetAttribute("model", "nin");
  for (const TensorEntry& tensor : all.tensors)
    file.Write(tensor.name, {tensor.shape.begin(), tensor.shape.end()}, all.values.data() + tensor.first);
  ASSERT_TRUE(file.Close().ok());
  const absl::StatusOr<Weights> read = ReadWeights(file_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->config, nlohmann::json({{"model", "nin"}}));
  EXPECT_EQ(read->values, all.values);
}

TEST_F(WeightsFileTest, CheckpointsThatVanishAreFollowedByTheNextNewest) {
  // A step is renamed to the next one again and again: it vanishes in the middle of about every third read.
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(ReadWeights(directory_).ok());
  const auto pause = 3 * (std::chrono::steady_clock::now() - start);
  std::atomic<bool> stop = false;
  std::thread training([&] {
    for (int64_t step = 3; !stop; ++step) {
      fs::rename(StepDirectory(directory_, step), StepDirectory(directory_, step + 1));
      std::this_thread::sleep_for(pause);
    }
  });
  for (int i = 0; i < 200; ++i) {
    const absl::StatusOr<Weights> weights = ReadWeights(directory_);
    EXPECT_TRUE(weights.ok()) << weights.status();
    if (!weights.ok()) break;
    EXPECT_THAT(weights->warnings, IsEmpty());
  }
  stop = true;
  training.join();
}

TEST_F(WeightsFileTest, AFailedWriteLeavesNothing) {
  EXPECT_FALSE(WriteWeights(*ReadWeights(file_), file_ + "/below.h5").ok());
  EXPECT_FALSE(WriteWeights(*ReadWeights(file_), directory_ + "/step-000000003").ok());
  EXPECT_FALSE(fs::exists(directory_ + "/step-000000003.tmp"));
}

}  // namespace
}  // namespace deeper
