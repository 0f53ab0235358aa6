#include "trainer/monitor/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "tests/data/scratch.h"

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

// A line without the time at its end.
std::string Untimed(const std::string& line) {
  auto event = nlohmann::ordered_json::parse(line);
  EXPECT_GT(event["time"], 1.5e9) << line;
  EXPECT_EQ(std::prev(event.end()).key(), "time") << line;
  event.erase("time");
  return event.dump();
}

class Metrics : public ::testing::Test {
 protected:
  std::string TestFile() const { return directory_ / "metrics.jsonl"; }

 private:
  const ScratchDir directory_;
};

Event ExampleStep(double loss = 3.5) {
  return {"step", {{"step", 20}, {"loss", loss}}};
}

TEST_F(Metrics, WritesTheDocumentedFields) {
  MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart);
  ASSERT_TRUE(writer.Write({"start", {{"config", {{"model", "nin"}}}, {"run", {{"ranks", 2}}}}}).ok());
  ASSERT_TRUE(writer.Write(ExampleStep()).ok());
  ASSERT_TRUE(
      writer.Write(EvalEvent(20, {.count = 10000, .loss = 2, .top1 = 2500, .top5 = 5000}, "val")).ok());
  ASSERT_TRUE(writer.Write({"bottleneck", {{"step", 20}, {"stage", "decode"}, {"what", "slow"}}}).ok());

  std::vector<std::string> lines = Lines(TestFile());
  ASSERT_EQ(lines.size(), 4u);
  for (std::string& line : lines) line = Untimed(line);
  EXPECT_EQ(lines[0], R"({"event":"start","config":{"model":"nin"},"run":{"ranks":2}})");
  EXPECT_EQ(lines[1], R"({"event":"step","step":20,"loss":3.5})");
  EXPECT_EQ(
      lines[2],
      R"({"event":"eval","step":20,"top1":0.25,"top5":0.5,"loss":2.0,"count":10000,"split":"val","tta":"none"})");
  EXPECT_EQ(lines[3], R"({"event":"bottleneck","step":20,"stage":"decode","what":"slow"})");
}

TEST_F(Metrics, AnEvaluationIsALineOfTheLog) {
  EXPECT_EQ(EvalEvent(20, {.count = 10000, .loss = 2, .top1 = 2500, .top5 = 5000}, "val").text,
            "evaluation at step 20: top-1 0.2500, top-5 0.5000, loss 2.0000 over 10000 samples");
}

TEST_F(Metrics, ALineIsThereAsSoonAsItIsWritten) {
  MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart);
  ASSERT_TRUE(writer.Write(ExampleStep()).ok());
  EXPECT_EQ(Lines(TestFile()).size(), 1u);
}

TEST_F(Metrics, NumbersThatAreNotFiniteStayValidJson) {
  MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kRestart);
  ASSERT_TRUE(writer.Write(ExampleStep(std::numeric_limits<double>::quiet_NaN())).ok());
  EXPECT_TRUE(json::parse(Lines(TestFile())[0])["loss"].is_null());
}

TEST_F(Metrics, ResumeAppendsAndStartsANewLineAfterACutOne) {
  std::ofstream(TestFile()) << R"({"event":"start"})"
                            << "\n"
                            << R"({"event":"st)";
  {
    MetricsWriter writer = *MetricsWriter::Open(TestFile(), MetricsWriter::Mode::kAppend);
    ASSERT_TRUE(writer.Write({"resume", {{"step", 20}, {"path", "runs/a"}}}).ok());
  }
  const std::vector<std::string> lines = Lines(TestFile());
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], R"({"event":"start"})");
  EXPECT_EQ(lines[1], R"({"event":"st)");
  EXPECT_EQ(Untimed(lines[2]), R"({"event":"resume","step":20,"path":"runs/a"})");
}

TEST_F(Metrics, RestartMovesAnEarlierFileAside) {
  namespace fs = std::filesystem;
  const ScratchDir directory;
  const std::string path = directory / "m.jsonl";
  EXPECT_EQ(MetricsWriter::Open(path, MetricsWriter::Mode::kRestart)->moved_to(), "");
  EXPECT_EQ(MetricsWriter::Open(path, MetricsWriter::Mode::kRestart)->moved_to(), "") << "it was empty";
  for (const std::string number : {"1", "2"}) {
    std::ofstream(path) << number << "\n";
    const std::string aside = fs::canonical(path).string() + "." + number;
    EXPECT_EQ(MetricsWriter::Open(path, MetricsWriter::Mode::kRestart)->moved_to(), aside);
    EXPECT_TRUE(Lines(path).empty());
  }
  EXPECT_EQ(Lines(path + ".1"), std::vector<std::string>{"1"});
  EXPECT_EQ(Lines(path + ".2"), std::vector<std::string>{"2"});

  // What is behind a link moves, and the link stays.
  fs::create_symlink(path, directory / "link");
  std::ofstream(path) << "3\n";
  EXPECT_TRUE(MetricsWriter::Open(directory / "link", MetricsWriter::Mode::kRestart).ok());
  EXPECT_TRUE(fs::is_symlink(directory / "link"));
  EXPECT_EQ(Lines(path + ".3"), std::vector<std::string>{"3"});
  EXPECT_EQ(MetricsWriter::Open("/dev/null", MetricsWriter::Mode::kRestart)->moved_to(), "");
}

TEST_F(Metrics, ADefaultWriterDiscards) {
  MetricsWriter writer;
  EXPECT_TRUE(writer.Write(ExampleStep()).ok());
}

TEST_F(Metrics, OpenCreatesTheDirectory) {
  const ScratchDir directory;
  const std::string path = directory / "below/m.jsonl";
  EXPECT_TRUE(MetricsWriter::Open(path, MetricsWriter::Mode::kRestart).ok());
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
}

TEST_F(Metrics, ErrorsNameTheFile) {
  EXPECT_THAT(
      std::string(
          MetricsWriter::Open("/dev/null/below/m.jsonl", MetricsWriter::Mode::kRestart).status().message()),
      HasSubstr("cannot create directory /dev/null/below: Not a directory"));
  MetricsWriter writer = *MetricsWriter::Open("/dev/full", MetricsWriter::Mode::kAppend);
  EXPECT_THAT(std::string(writer.Write(ExampleStep()).message()),
              HasSubstr("cannot write metrics to /dev/full: No space left"));
}

// A disk that is full in the middle of a line or of an event. A limit on the size of files simulates it.
TEST_F(Metrics, AFullDiskLeavesNothingIncomplete) {
  const ScratchDir scratch;
  const std::filesystem::path directory = scratch.path(), path = directory / "m.jsonl";
  MetricsWriter writer = *MetricsWriter::Open(path, MetricsWriter::Mode::kRestart);
  ASSERT_TRUE(writer.AddTensorBoard(directory / "events", 0).ok());
  ASSERT_TRUE(writer.Write(ExampleStep()).ok());
  const std::filesystem::path events = *std::filesystem::directory_iterator(directory / "events");

  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (const std::filesystem::path& file : {path, events}) {
    const uintmax_t size = std::filesystem::file_size(file);
    const rlimit full = {.rlim_cur = size + 10, .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
    EXPECT_FALSE(writer.Write(ExampleStep()).ok());
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(std::filesystem::file_size(file), size) << file;
  }
  EXPECT_TRUE(writer.Write(ExampleStep()).ok());
  for (const std::string& line : Lines(path)) EXPECT_TRUE(json::accept(line)) << line;
}

}  // namespace
}  // namespace deeper
