#include "trainer/models/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace deeper {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Describe, JsonAccountsForEveryLayer) {
  const auto json = nlohmann::json::parse(DescribeJson(*MakeModel("googlenet", {}), 2));
  EXPECT_EQ(json["model"], "googlenet");
  EXPECT_EQ(json["batch"], 2);
  int64_t parameters = 0, macs = 0, bytes = 0;
  for (const auto& layer : json["layers"]) {
    parameters += layer["parameters"].get<int64_t>();
    macs += layer["macs"].get<int64_t>();
    bytes += layer["activation_bytes"].get<int64_t>();
  }
  EXPECT_EQ(json["total"]["parameters"], parameters);
  EXPECT_EQ(json["total"]["macs"], macs);
  EXPECT_EQ(json["total"]["activation_bytes"], bytes);
  EXPECT_EQ(json["total_without_aux"]["parameters"], 6'998'552);

  const auto& conv1 = json["layers"][0];
  EXPECT_EQ(conv1["name"], "conv1");
  EXPECT_EQ(conv1["kind"], "conv2d");
  EXPECT_EQ(conv1["output"], (nlohmann::json{2, 64, 112, 112}));
  EXPECT_EQ(conv1["parameters"], 64 * 3 * 49 + 64);
  EXPECT_EQ(conv1["macs"], int64_t{2} * 64 * 3 * 49 * 112 * 112);
  EXPECT_EQ(conv1["activation_bytes"], 2 * 64 * 112 * 112 * 4);
}

TEST(Describe, CountsRunningStatisticsNotAsParameters) {
  const auto json = nlohmann::json::parse(DescribeJson(*MakeModel("googlenet-torchvision", {}), 1));
  EXPECT_EQ(json["total"]["parameters"], 13'004'888);
  EXPECT_EQ(json["total_without_aux"]["parameters"], 6'624'904);
}

TEST(Describe, ComparesAsThePaperDoes) {
  const auto json = nlohmann::json::parse(DescribeJson(*MakeModel("nin", {}), 1))["comparison"];
  EXPECT_EQ(json["branch_5x5"]["direct_macs"], 120'422'400);
  EXPECT_EQ(json["branch_5x5"]["reduce_1x1_macs"], 2'408'448);
  EXPECT_EQ(json["branch_5x5"]["reduced_5x5_macs"], 10'035'200);
  EXPECT_EQ(json["branch_5x5"]["reduced_total_macs"], 12'443'648);
  EXPECT_EQ(json["networks"]["alexnet"]["parameters"], 61'100'840);
  EXPECT_EQ(json["networks"]["vgg16"]["parameters"], 138'357'544);
  EXPECT_EQ(json["networks"]["googlenet"]["parameters"], 6'998'552);
  EXPECT_GT(json["networks"]["googlenet-naive"]["macs"], json["networks"]["googlenet"]["macs"]);
}

TEST(Describe, TextIsATableWithTotals) {
  const std::string text = DescribeText(*MakeModel("googlenet", {}), 1);
  EXPECT_THAT(text, HasSubstr("googlenet: 224 x 224 px, 3 channels, 1000 classes, batch 1\n"));
  EXPECT_THAT(text, ContainsRegex("\ninception3a +inception +256 x 28 x 28 +163,696 "));
  EXPECT_THAT(text, ContainsRegex("\nwithout aux heads +6,998,552 "));
  EXPECT_THAT(text, HasSubstr("2,408,448 + 10,035,200 = 12,443,648, 9.7 times fewer"));
  EXPECT_THAT(DescribeText(*MakeModel("nin", {}), 1), Not(HasSubstr("without aux heads")));
}

}  // namespace
}  // namespace deeper
