#include "data/io/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "data/io/hdf5_file.h"
#include "tests/data/scratch.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Writes `text` to the named pipe while something reads it.
class PipeWriter {
 public:
  PipeWriter(const std::string& path, const std::string& text) {
    EXPECT_EQ(mkfifo(path.c_str(), 0600), 0);
    thread_ = std::thread([path, text] { std::ofstream(path) << text; });
  }
  ~PipeWriter() { thread_.join(); }

 private:
  std::thread thread_;
};

TEST(FileTest, ReadsAPipeToItsEnd) {
  const ScratchDir dir;
  const std::string text(300000, 'x');  // more than a pipe holds at once
  const PipeWriter writer(dir / "pipe", text);
  const auto bytes = ReadFile(dir / "pipe");
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(std::string(bytes->begin(), bytes->end()), text);
}

TEST(FileTest, ReadsFilesWhoseSizeIsUnknownAndFilesOfAnySize) {
  EXPECT_THAT(*ReadText("/proc/self/status"), HasSubstr("VmRSS"));
  const ScratchDir dir;
  for (const size_t size : {size_t{0}, size_t{4095}, size_t{4096}, size_t{4097}, size_t{100000}}) {
    WriteBytes(dir / "file", Bytes(size, 7));
    EXPECT_EQ(*ReadFile(dir / "file"), Bytes(size, 7));
  }
}

TEST(FileTest, WhatCannotBeReadIsNamed) {
  const ScratchDir dir;
  EXPECT_THAT(ReadFile(dir.path()).status().ToString(), HasSubstr(dir.path()));
  EXPECT_TRUE(absl::IsNotFound(ReadFile(dir / "none").status()));
}

TEST(FileTest, LinesHaveNoByteOrderMarkNoTrailingBlanksAndNoLineEnds) {
  const ScratchDir dir;
  std::ofstream(dir / "lines") << "\xEF\xBB\xBF"
                               << "cat \r\n\r\n  big dog\t\n \nend";
  EXPECT_THAT(*ReadLines(dir / "lines"), ElementsAre("cat", "  big dog", "end"));
}

TEST(Hdf5FileTest, APipeIsRefused) {
  const ScratchDir dir;
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(Hdf5File::Open(dir / "pipe").status().ToString(), HasSubstr("cannot read from a pipe"));
}

}  // namespace
}  // namespace deeper
