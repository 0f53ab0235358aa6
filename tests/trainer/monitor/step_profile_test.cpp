#include "trainer/monitor/step_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace deeper {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

GpuSpec Gpu() {
  GpuSpec gpu = {};
  gpu.bytes_per_second = 1e12;
  gpu.bf16_flops = 100e12;
  gpu.fp32_flops = 10e12;
  return gpu;
}

const std::vector<ProfiledLaunch> kProfile = {
    {"conv1", {"conv", 1'000'000'000, 150'000'000'000}, 0, 6},  // floors: 1 ms to move, 3 ms to compute
    {"conv1", {"relu", 1'000'000'000, 0}, 6, 1},
    {"pool1", {"max pool", 500'000'000, 0}, 7.5, 1},
    {"conv2", {"conv", 0, 50'000'000'000}, 9, 2},
};

TEST(FloorMicroseconds, IsTheLargerOfMovingAndComputing) {
  const Launch conv = kProfile[0].launch, relu = kProfile[1].launch;
  EXPECT_DOUBLE_EQ(FloorMicroseconds(conv, Gpu(), DType::kBf16), 3000);
  EXPECT_DOUBLE_EQ(FloorMicroseconds(conv, Gpu(), DType::kBf16, 0.5), 6000);
  EXPECT_DOUBLE_EQ(FloorMicroseconds(conv, Gpu(), DType::kF32), 30000);
  EXPECT_DOUBLE_EQ(FloorMicroseconds(relu, Gpu(), DType::kBf16, 0.5), 1000);
}

TEST(GpuSpec, IsFoundByFlagAndByDevice) {
  EXPECT_STREQ(FindGpu("h200")->name, "NVIDIA H200");
  const absl::Status unknown = FindGpu("v100").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(unknown.message(), HasSubstr("h100, h200, a100"));
  ASSERT_NE(GpuOf("NVIDIA H200, 132 SMs, compute capability 9.0"), nullptr);
  EXPECT_STREQ(GpuOf("NVIDIA H200, 132 SMs, compute capability 9.0")->flag, "h200");
  EXPECT_EQ(GpuOf("NVIDIA H200 NVL, 132 SMs"), nullptr);  // slower
}

TEST(StepProfile, TraceHasEveryLaunch) {
  const auto events = nlohmann::json::parse(TraceJson(kProfile))["traceEvents"];
  ASSERT_EQ(events.size(), kProfile.size());
  EXPECT_EQ(events[2]["name"], "max pool");
  EXPECT_EQ(events[2]["ph"], "X");
  EXPECT_EQ(events[2]["ts"], 7500);
  EXPECT_EQ(events[2]["dur"], 1000);
  EXPECT_EQ(events[2]["args"], (nlohmann::json{{"scope", "pool1"}, {"bytes", 500'000'000}, {"macs", 0}}));
}

TEST(StepProfile, TextSumsUpByLaunchAndByModule) {
  const std::string text = ProfileText(kProfile, Gpu().peak(), DType::kBf16);
  EXPECT_THAT(text, ContainsRegex("\nconv +2 +8\\.000 +80\\.0 +4\\.000 +50\\.0\n"));
  EXPECT_THAT(text, ContainsRegex("\nconv1 +2 +7\\.000 +70\\.0 +4\\.000 +57\\.1\n"));
  EXPECT_THAT(text, ContainsRegex("\ntotal +4 +10\\.000 +100\\.0 +5\\.500 +55\\.0\n"));
  EXPECT_LT(text.find("\nconv1 "), text.find("\nconv2 "));  // the longest first
}

TEST(StepProfile, TextWithoutAFloor) {
  const std::string text = ProfileText(kProfile, std::nullopt, DType::kBf16);
  EXPECT_THAT(text, ContainsRegex("\nconv +2 +8\\.000 +80\\.0\n"));
  EXPECT_THAT(text, Not(HasSubstr("floor")));
}

}  // namespace
}  // namespace deeper
