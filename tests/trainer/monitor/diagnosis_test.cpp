#include "trainer/monitor/diagnosis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "trainer/engine/network.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Not;

// A convolution, a module and a classifier, with weights of 1 and gradients of 1/8 everywhere.
class DiagnosisTest : public ::testing::Test {
 protected:
  DiagnosisTest() {
    model_.channels = 3;
    model_.image_size = 4;
    model_.num_classes = 5;
    model_.nodes = {{"conv1", Conv2dParams{.out_channels = 20, .kernel = 3, .pad = 1, .batch_norm = true}},
                    {"inception3a",
                     InceptionParams{.c1 = 8, .c2_reduce = 8, .c2 = 8, .c3_reduce = 8, .c3 = 8, .c4 = 8}, 0},
                    {"inception3b",
                     InceptionParams{.c1 = 8, .c2_reduce = 8, .c2 = 8, .c3_reduce = 8, .c3 = 8, .c4 = 8}, 1},
                    {"avgpool", GlobalAvgPoolParams{}, 2},
                    {"fc", LinearParams{.out_features = 5}, 3}};
    model_.heads = {{"main", 4, 1.0f}};
    net_ = *Network::Prepare(model_, {.rows = 2}, *device_);
    params_ = *ParamStore::Create(net_->Params(), *device_, /*training=*/true);
    for (const Param& param : params_->trained()) {
      Fill(param, params_->values(), 1);
      Fill(param, params_->grads(), 0.125f);
    }
  }

  void Fill(const Param& param, float* arena, float value) {
    const std::vector<float> values(static_cast<size_t>(param.spec.elements()), value);
    params_->Write(param, values.data(), arena);
  }
  const Param& Named(const std::string& name) {
    return *std::ranges::find(params_->trained(), name, &Param::name);
  }

  Model model_;
  std::unique_ptr<Device> device_ = MakeCpuDevice(1);
  std::unique_ptr<Network> net_;
  std::unique_ptr<ParamStore> params_;
  DeadClasses none_;
};

TEST_F(DiagnosisTest, CountsTheStages) {
  const Param& shift = Named("conv1.bn.bias");
  std::vector<float> some(20, 1.0f);
  some[3] = some[19] = 0;
  params_->Write(shift, some.data(), params_->grads());
  Fill(Named("inception3b.branch1.conv.bias"), params_->grads(), 0);
  const std::vector<StageHealth> stages = DiagnoseStages(model_, *params_);
  ASSERT_EQ(stages.size(), 3u);
  EXPECT_EQ(stages[0].stage, "conv1");
  EXPECT_EQ(stages[1].stage, "inception3");
  EXPECT_EQ(stages[2].stage, "fc");
  EXPECT_THAT(stages[0].weight, DoubleNear(std::sqrt(20 * 27), 1e-6));
  for (const StageHealth& stage : stages) EXPECT_THAT(stage.relative_gradient(), DoubleNear(0.125, 1e-6));
  EXPECT_EQ(stages[0].channels, 20);  // those of the shift; the scale does not count
  EXPECT_EQ(stages[0].dead, 2);
  EXPECT_EQ(stages[1].channels, 2 * 48);
  EXPECT_EQ(stages[1].dead, 8);
  EXPECT_EQ(stages[2].channels, 0);

  const Event event = DiagnosisEvent(7, 2, stages, none_);
  EXPECT_EQ(event.name, "diagnosis");
  EXPECT_EQ(event.fields.at("dead_conv1"), 0.1);
  EXPECT_EQ(event.fields.at("what"), "");
  EXPECT_FALSE(event.fields.contains("dead_fc"));
  EXPECT_EQ(event.text,
            "diagnosis of step 7: gradients relative to weights: conv1 0.12, inception3 0.12, fc 0.12; dead "
            "ReLUs: conv1 10 %, inception3 8 %");
}

TEST_F(DiagnosisTest, WarnsWhereNothingIsLearned) {
  EXPECT_THAT(DiagnosisEvent(1, 32, DiagnoseStages(model_, *params_), none_).text,
              AllOf(HasSubstr("dead ReLUs: none"), Not(HasSubstr("warning"))));
  for (const Param& param : params_->trained()) {
    if (param.name.starts_with("inception") && param.spec.role == ParamRole::kBias)
      Fill(param, params_->grads(), 0);
    if (param.name.starts_with("conv1")) Fill(param, params_->grads(), 1e-7f);
  }
  const std::vector<StageHealth> stages = DiagnoseStages(model_, *params_);
  const std::string what = "hardly any gradient reaches conv1; most ReLUs of inception3 are dead";
  const Event event = DiagnosisEvent(1, 32, stages, none_);
  EXPECT_EQ(event.fields.at("what"), what);
  EXPECT_THAT(event.text, HasSubstr("\nwarning: " + what + ". Try"));
  EXPECT_THAT(DiagnosisEvent(1, 31, stages, none_).text,
              AllOf(HasSubstr("inception3 100 %"), HasSubstr("reaches conv1. Try")));
}

TEST_F(DiagnosisTest, WarnsAboutClassesWhoseOutputIsAlwaysZero) {
  Model nin;
  nin.channels = 3;
  nin.image_size = 4;
  nin.num_classes = 300;
  nin.nodes = {{"mlpconv1.0", Conv2dParams{.out_channels = 300, .kernel = 3, .pad = 1}},
               {"mlpconv1.1", Conv2dParams{.out_channels = 300, .kernel = 1}, 0},
               {"avgpool", GlobalAvgPoolParams{}, 1}};
  nin.heads = {{"main", 2, 1.0f}};
  net_ = *Network::Prepare(nin, {.rows = 2}, *device_);
  params_ = *ParamStore::Create(net_->Params(), *device_, /*training=*/true);
  for (const Param& param : params_->trained()) {
    Fill(param, params_->values(), 1);
    Fill(param, params_->grads(), 0.125f);
  }
  DeadClasses dead;
  const auto text = [&](int64_t images, const std::vector<size_t>& zeros) {
    std::vector<float> bias(300, 0.125f);
    for (const size_t index : zeros) bias[index] = 0;
    params_->Write(Named("mlpconv1.1.conv.bias"), bias.data(), params_->grads());
    return DiagnosisEvent(1, images, DiagnoseStages(nin, *params_), dead).text;
  };
  EXPECT_THAT(text(1800, {}), AllOf(HasSubstr("dead ReLUs: none"), Not(HasSubstr("warning"))));
  EXPECT_THAT(text(900, {7, 8}), AllOf(HasSubstr("mlpconv1 under 1 %"), Not(HasSubstr("warning"))));
  EXPECT_THAT(text(899, {2, 7}), Not(HasSubstr("warning"))) << "perhaps the images were of other classes";
  EXPECT_THAT(text(1, {7}), HasSubstr("\nwarning: the outputs for 1 of 300 classes are 0 for all images, so "
                                      "they do not learn (class 7). Try"));
  EXPECT_THAT(text(900, {8}), Not(HasSubstr("warning"))) << "7 learns again";
  EXPECT_THAT(text(900, {8}), Not(HasSubstr("warning")));
  dead = {};
  std::vector<size_t> twelve(12);
  std::iota(twelve.begin(), twelve.end(), size_t{0});
  EXPECT_THAT(text(1800, twelve),
              HasSubstr("for 12 of 300 classes are 0 for all images, so they do not learn "
                        "(class 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)"));
}

}  // namespace
}  // namespace deeper
