#include "data/io/hdf5_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>

#include "data/io/file.h"
#include "tests/data/scratch.h"

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::ExitedWithCode;
using ::testing::HasSubstr;

absl::Status WriteSample(const std::string& path) {
  absl::StatusOr<Hdf5File> file = Hdf5File::Create(path);
  if (!file.ok()) return file.status();
  file->SetAttribute("answer", int64_t{-42});
  file->SetAttribute("empty", "");
  file->SetAttribute("name", "grüße");
  file->Write("counts", std::vector<uint32_t>{1, 2, 0xFFFFFFFF});
  file->Write("strings", FixedStrings({"a", "longer", ""}));
  const std::vector<float> matrix = {0.5f, 1, 2, 3, 4, 5};
  file->Write("matrix", {2, 3}, matrix.data());
  return file->Close();
}

TEST(Hdf5File, ReadsBackWhatWasWritten) {
  const ScratchDir dir;
  ASSERT_TRUE(WriteSample(dir / "x.h5").ok());
  const absl::StatusOr<Hdf5File> file = Hdf5File::Open(dir / "x.h5");
  ASSERT_TRUE(file.ok()) << file.status();
  int64_t answer = 0;
  std::string empty = "?", name;
  std::vector<uint32_t> counts;
  std::vector<float> matrix;
  FixedStrings strings;
  EXPECT_TRUE(file->ReadAttribute("answer", &answer).ok());
  EXPECT_TRUE(file->ReadAttribute("empty", &empty).ok());
  EXPECT_TRUE(file->ReadAttribute("name", &name).ok());
  EXPECT_TRUE(file->Read("counts", &counts).ok());
  EXPECT_TRUE(file->Read("matrix", &matrix).ok());
  EXPECT_TRUE(file->Read("strings", &strings).ok());
  EXPECT_EQ(answer, -42);
  EXPECT_EQ(empty, "");
  EXPECT_EQ(name, "grüße");
  EXPECT_THAT(counts, ElementsAre(1, 2, 0xFFFFFFFF));
  EXPECT_THAT(matrix, ElementsAre(0.5f, 1, 2, 3, 4, 5));
  EXPECT_THAT(file->Locate("matrix", Hdf5Type::kF32)->shape, ElementsAre(2, 3));
  ASSERT_EQ(strings.size(), 3u);
  EXPECT_EQ(strings[1], "longer");
  EXPECT_EQ(strings[2], "");
  EXPECT_THAT(file->Names(), ElementsAre("counts", "matrix", "strings"));
}

TEST(Hdf5File, SameContentSameBytes) {
  const ScratchDir dir;
  ASSERT_TRUE(WriteSample(dir / "a.h5").ok());
  ASSERT_TRUE(WriteSample(dir / "b.h5").ok());
  EXPECT_EQ(ReadBytes(dir / "a.h5"), ReadBytes(dir / "b.h5"));
}

TEST(Hdf5File, ReservedBytesAreWhereTheExtentSays) {
  const ScratchDir dir;
  absl::StatusOr<Hdf5File> created = Hdf5File::Create(dir / "x.h5");
  ASSERT_TRUE(created.ok());
  const Hdf5Extent extent = created->Reserve("data", Hdf5Type::kU8, {100000});
  ASSERT_TRUE(created->Close().ok());
  EXPECT_EQ(extent.bytes, 100000u);
  EXPECT_EQ(extent.offset % (64 << 10), 0u);
  const absl::StatusOr<File> raw = File::Open(dir / "x.h5", O_RDWR);
  ASSERT_TRUE(raw.ok() && raw->WriteAt(extent.offset + 99999, "\x7F", 1).ok());
  const absl::StatusOr<Hdf5File> file = Hdf5File::Open(dir / "x.h5");
  std::vector<uint8_t> data;
  ASSERT_TRUE(file->Read("data", &data).ok());
  EXPECT_EQ(data[99999], 0x7F);
  EXPECT_EQ(file->Locate("data", Hdf5Type::kU8)->offset, extent.offset);
}

TEST(Hdf5File, ReadingNamesWhatIsMissingOrMistyped) {
  const ScratchDir dir;
  ASSERT_TRUE(WriteSample(dir / "x.h5").ok());
  const absl::StatusOr<Hdf5File> file = Hdf5File::Open(dir / "x.h5");
  std::vector<uint16_t> shorts;
  FixedStrings strings;
  int64_t number;
  std::string text;
  EXPECT_THAT(file->Read("nothing", &shorts).message(), HasSubstr("x.h5 has no dataset nothing"));
  EXPECT_THAT(file->Read("counts", &shorts).message(), HasSubstr("counts of "));
  EXPECT_EQ(file->Read("counts", &strings).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file->ReadAttribute("nothing", &number).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(file->ReadAttribute("name", &number).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(file->ReadAttribute("answer", &text).code(), absl::StatusCode::kDataLoss);
}

TEST(Hdf5File, OpenRefusesOtherAndDamagedFiles) {
  const ScratchDir dir;
  EXPECT_EQ(Hdf5File::Open(dir / "none.h5").status().code(), absl::StatusCode::kNotFound);
  WriteBytes(dir / "text.h5", Bytes(1000, 'x'));
  EXPECT_THAT(Hdf5File::Open(dir / "text.h5").status().message(), HasSubstr("text.h5"));
  ASSERT_TRUE(WriteSample(dir / "x.h5").ok());
  Bytes bytes = ReadBytes(dir / "x.h5");
  bytes.resize(bytes.size() - 1);
  WriteBytes(dir / "short.h5", bytes);
  EXPECT_EQ(Hdf5File::Open(dir / "short.h5").status().code(), absl::StatusCode::kDataLoss);
}

// A chunked dataset is not contiguous in the file.
TEST(Hdf5File, OnlyContiguousArraysAreLocated) {
  const ScratchDir dir;
  const hid_t file = H5Fcreate((dir / "x.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t size = 8;
  const hid_t space = H5Screate_simple(1, &size, nullptr), creation = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(creation, 1, &size);
  const hid_t set = H5Dcreate2(file, "chunked", H5T_STD_U8LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  ASSERT_GE(set, 0);
  H5Dclose(set), H5Pclose(creation), H5Sclose(space), H5Fclose(file);
  EXPECT_THAT(Hdf5File::Open(dir / "x.h5")->Locate("chunked", Hdf5Type::kU8).status().message(),
              HasSubstr("chunked of " + (dir / "x.h5") + " is not a contiguous array"));
}

TEST(Hdf5File, CreateNamesThePathItCannotWrite) {
  const ScratchDir dir;
  const absl::Status status = Hdf5File::Create(dir / "no/such/x.h5").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("no/such/x.h5"));
}

// A limit on file sizes simulates a full disk: the same calls fail with the same error.
TEST(Hdf5FileDeathTest, FullDiskShowsAtClose) {
  const ScratchDir dir;
  const auto write_too_much = [&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{200000, 200000};
    setrlimit(RLIMIT_FSIZE, &limit);
    absl::StatusOr<Hdf5File> file = Hdf5File::Create(dir / "x.h5");
    file->Write("big", std::vector<uint64_t>(1 << 20, 7));
    file->Write("small", std::vector<uint64_t>{1});
    const absl::Status closed = file->Close();
    std::fprintf(stderr, "%s\n", closed.ToString().c_str());
    std::_Exit(closed.code() == absl::StatusCode::kResourceExhausted ? 0 : 1);
  };
  EXPECT_EXIT(write_too_much(), ExitedWithCode(0), "x.h5: File too large; free space");
}

}  // namespace
}  // namespace deeper
