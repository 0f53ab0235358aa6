#include "trainer/monitor/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

namespace deeper {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

// A line without its time, which every event ends with.
std::string Untimed(const std::string& line) {
  auto event = nlohmann::ordered_json::parse(line);
  EXPECT_GT(event["time"], 1.5e9) << line;
  EXPECT_EQ(std::prev(event.end()).key(), "time") << line;
  event.erase("time");
  return event.dump();
}

std::string TestFile() {
  return ::testing::TempDir() + ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl";
}

StepMetrics ExampleStep() {
  return {.step = 20,
          .epoch = 1,
          .loss = 3.5,
          .head_losses = {{"main", 2.0}, {"aux1", 2.5}, {"aux2", 2.25}},
          .lr = 0.1,
          .images_per_second = 640,
          .data_wait_ms = 0.5,
          .compute_ms = 99,
          .read_ms = 8,
          .decode_ms = 64,
          .augment_ms = 32,
          .comm_exposed_ms = 1.5,
          .peer_wait_ms = 0.25,
          .samples = 0xC0FFEE,
          .nonfinite_steps = 2};
}

TEST(Metrics, WritesTheDocumentedFields) {
  MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart);
  ASSERT_TRUE(writer.Start({{"model", "nin"}}, {{"ranks", 2}}).ok());
  ASSERT_TRUE(writer.Step(ExampleStep()).ok());
  ASSERT_TRUE(writer.Eval({.step = 20, .top1 = 0.25, .top5 = 0.5, .loss = 2, .count = 10000}).ok());
  ASSERT_TRUE(writer.Checkpoint({20, "runs/a/step-000000020", 0.125, 4.5, 0.5}).ok());
  ASSERT_TRUE(writer.CheckpointFailed(21, "disk full").ok());
  ASSERT_TRUE(writer.Bottleneck(20, "decode", "slow").ok());
  ASSERT_TRUE(writer.BadSample(20, "x.h5").ok());
  ASSERT_TRUE(writer.NonFinite(21, "fc.bias").ok());
  ASSERT_TRUE(writer.Straggler(50, "rank 1 is slow").ok());
  ASSERT_TRUE(writer.Done(20, 12.5).ok());

  std::vector<std::string> lines = Lines(TestFile());
  ASSERT_EQ(lines.size(), 10u);
  for (std::string& line : lines) line = Untimed(line);
  EXPECT_EQ(lines[0], R"({"event":"start","config":{"model":"nin"},"run":{"ranks":2}})");
  EXPECT_EQ(
      lines[1],
      R"({"event":"step","step":20,"epoch":1,"loss":3.5,"loss_main":2.0,"loss_aux1":2.5,"loss_aux2":2.25,)"
      R"("lr":0.1,"images_per_second":640.0,"data_wait_ms":0.5,"compute_ms":99.0,"read_ms":8.0,"decode_ms":64.0,)"
      R"("augment_ms":32.0,"comm_exposed_ms":1.5,"peer_wait_ms":0.25,"samples":"0000000000c0ffee",)"
      R"("nonfinite_steps":2})");
  EXPECT_EQ(lines[2], R"({"event":"eval","step":20,"top1":0.25,"top5":0.5,"loss":2.0,"count":10000})");
  EXPECT_EQ(lines[3], R"({"event":"checkpoint","step":20,"path":"runs/a/step-000000020","seconds":0.125,)"
                      R"("stall_ms":4.5,"wait_ms":0.5})");
  EXPECT_EQ(lines[4], R"({"event":"checkpoint_failed","step":21,"reason":"disk full"})");
  EXPECT_EQ(lines[5], R"({"event":"bottleneck","step":20,"stage":"decode","what":"slow"})");
  EXPECT_EQ(lines[6], R"({"event":"bad_sample","step":20,"what":"x.h5"})");
  EXPECT_EQ(lines[7], R"({"event":"nonfinite","step":21,"reason":"fc.bias"})");
  EXPECT_EQ(lines[8], R"({"event":"straggler","step":50,"what":"rank 1 is slow"})");
  EXPECT_EQ(lines[9], R"({"event":"done","step":20,"seconds":12.5})");
}

TEST(Metrics, ALineIsThereAsSoonAsItIsWritten) {
  MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart);
  ASSERT_TRUE(writer.Step(ExampleStep()).ok());
  EXPECT_EQ(Lines(TestFile()).size(), 1u);
}

TEST(Metrics, NumbersThatAreNotFiniteStayValidJson) {
  MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart);
  StepMetrics metrics = ExampleStep();
  metrics.loss = std::numeric_limits<double>::quiet_NaN();
  ASSERT_TRUE(writer.Step(metrics).ok());
  EXPECT_TRUE(json::parse(Lines(TestFile())[0])["loss"].is_null());
}

TEST(Metrics, ResumeAppendsAndStartsANewLineAfterACutOne) {
  std::ofstream(TestFile()) << R"({"event":"start"})"
                            << "\n"
                            << R"({"event":"st)";
  {
    MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kAppend);
    ASSERT_TRUE(writer.Resume(20, "runs/a/step-000000020", {{"ranks", 4}}).ok());
  }
  const std::vector<std::string> lines = Lines(TestFile());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], R"({"event":"start"})");
  EXPECT_EQ(lines[1], R"({"event":"st)");
  EXPECT_EQ(Untimed(lines[2]),
            R"({"event":"resume","step":20,"path":"runs/a/step-000000020","run":{"ranks":4}})");
}

TEST(Metrics, RestartEmptiesTheFile) {
  std::ofstream(TestFile()) << "old\n";
  ASSERT_TRUE(MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart).ok());
  EXPECT_TRUE(Lines(TestFile()).empty());
}

TEST(Metrics, ADefaultWriterDiscards) {
  MetricsWriter writer;
  EXPECT_TRUE(writer.Step(ExampleStep()).ok());
}

TEST(Metrics, ErrorsNameTheFile) {
  EXPECT_THAT(
      std::string(
          MetricsWriter::Open("/nonexistent/m.jsonl", MetricsWriter::Mode::kRestart).status().message()),
      HasSubstr("cannot create /nonexistent/m.jsonl: No such file"));
  MetricsWriter writer = *MetricsWriter::Open("/dev/full", MetricsWriter::Mode::kAppend);
  EXPECT_THAT(std::string(writer.Step(ExampleStep()).message()),
              HasSubstr("cannot write metrics to /dev/full: No space left"));
}

}  // namespace
}  // namespace deeper
