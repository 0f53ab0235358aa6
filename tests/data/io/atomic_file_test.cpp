#include "data/io/atomic_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "data/io/checksum.h"
#include "kernels/base/jobs.h"
#include "tests/data/scratch.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::Each;
using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

std::string Text(const std::string& path) {
  const Bytes bytes = ReadBytes(path);
  return std::string(bytes.begin(), bytes.end());
}

TEST(AtomicFile, WritesAndReplaces) {
  const ScratchDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "x", "first").ok());
  ASSERT_TRUE(WriteFileAtomically(dir / "x", "2nd").ok());
  EXPECT_EQ(Text(dir / "x"), "2nd");
  EXPECT_FALSE(fs::exists(dir / "x.tmp"));
}

TEST(AtomicFile, ErrorsNameThePathAndWhatToDo) {
  const ScratchDir dir;
  const absl::Status missing = WriteFileAtomically(dir / "no/x", "");
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("cannot write " + (dir / "no/x")));
  EXPECT_THAT(missing.message(), HasSubstr("check the path"));
  EXPECT_EQ(IoError("write", "/x", EROFS).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(IoError("write", "/x", ENOSPC).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(IoError("write", "/x", ENOSPC).message(), HasSubstr("free space"));
}

TEST(AtomicFile, ALinkToNowhereIsNamed) {
  const ScratchDir dir;
  fs::create_symlink("gone", dir / "link");
  for (const char* below : {"link", "link/", "link/a/b"}) {
    const std::string message(CreateDirectories(dir / below).message());
    EXPECT_THAT(message, HasSubstr(dir / "link" + " is a link to gone, which does not exist"));
  }
}

TEST(AtomicFileDeathTest, FullDiskKeepsTheOldFile) {
  const ScratchDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "x", "old").ok());
  const auto write_too_much = [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = WriteFileAtomically(dir / "x", std::string(10000, 'n'));
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::_Exit(status.code() == absl::StatusCode::kResourceExhausted ? 0 : 1);
  };
  EXPECT_EXIT(write_too_much(), ExitedWithCode(0), "x.tmp: File too large");
  EXPECT_EQ(Text(dir / "x"), "old");
  EXPECT_FALSE(fs::exists(dir / "x.tmp"));
}

TEST(AtomicFile, RenamesDirectories) {
  const ScratchDir dir;
  ASSERT_TRUE(CreateDirectories(dir / "a/b").ok());
  ASSERT_TRUE(RenameDurably(dir / "a", dir / "c").ok());
  EXPECT_TRUE(fs::is_directory(dir / "c/b"));
  EXPECT_EQ(RenameDurably(dir / "a", dir / "d").code(), absl::StatusCode::kNotFound);
  WriteBytes(dir / "file", {1});
  EXPECT_THAT(CreateDirectories(dir / "file/x").message(), HasSubstr(dir / "file/x"));
}

TEST(File, ReadingPastTheEndIsAnError) {
  const ScratchDir dir;
  WriteBytes(dir / "x", {1, 2, 3});
  const absl::StatusOr<File> file = File::Open(dir / "x", O_RDONLY);
  char buffer[4];
  EXPECT_TRUE(file->ReadAt(1, buffer, 2).ok());
  EXPECT_EQ(buffer[1], 3);
  EXPECT_THAT(file->ReadAt(1, buffer, 3).message(), HasSubstr("truncated at byte 3"));
}

TEST(Checksum, KnownValues) {
  EXPECT_EQ(Crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(Crc32c("6789", 4, Crc32c("12345", 5)), 0xE3069283u);
  EXPECT_EQ(Xxh3("", 0).Hex(), "99aa06d3014798d86001c324468d497f");
}

TEST(Checksum, StreamAndFileAgreeWithMemory) {
  const ScratchDir dir;
  Bytes bytes(3 << 20);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * i >> 7);
  bytes.push_back(9);
  WriteBytes(dir / "x", bytes);
  const Hash128 whole = Xxh3(bytes.data(), bytes.size());
  Xxh3Stream stream;
  stream.Add(bytes.data(), 1000);
  stream.Add(bytes.data() + 1000, bytes.size() - 1000);
  EXPECT_EQ(stream.Finish(), whole);
  EXPECT_EQ(*Xxh3OfFile(dir / "x"), whole);
}

TEST(RunJobs, RunsEachPieceOnceAndReturnsTheFirstError) {
  for (const int jobs : {1, 4}) {
    std::vector<int> runs(100);
    EXPECT_TRUE(RunJobs(jobs, 100, [&](int64_t i) {
                  ++runs[static_cast<size_t>(i)];
                  return absl::OkStatus();
                }).ok());
    EXPECT_THAT(runs, Each(1));
    const absl::Status status = RunJobs(jobs, 100, [](int64_t i) {
      return i >= 3 ? absl::InternalError(std::to_string(i)) : absl::OkStatus();
    });
    EXPECT_EQ(status.message(), "3");
  }
}

}  // namespace
}  // namespace deeper
