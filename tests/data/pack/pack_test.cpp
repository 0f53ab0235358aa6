#include "data/pack/pack.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>

#include "data/image/image_codec.h"
#include "data/load/dataset.h"
#include "tests/data/open_shards.h"
#include "tests/data/small_dataset.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::KilledBySignal;

std::string Error(const PackOptions& options) {
  return std::string(Pack(options).status().message());
}

std::map<std::string, Bytes> Contents(const std::string& dir) {
  std::map<std::string, Bytes> files;
  for (const auto& entry : fs::directory_iterator(dir))
    files[entry.path().filename()] = ReadBytes(entry.path());
  return files;
}

// A failed packing may leave the directory itself, but no file.
void ExpectNothingIn(const std::string& dir) {
  EXPECT_TRUE(!fs::exists(dir) || fs::is_empty(dir)) << dir;
}

PackOptions FolderOptions(const ScratchDir& dir) {
  PackOptions options;
  options.format = "folder";
  options.input = dir / "in";
  options.output = dir / "out";
  options.jobs = 2;
  return options;
}

// cat/: a PNG named .JPEG, a grey JPEG, one pixel; dog/: 500 x 33, a CMYK JPEG in a subfolder.
PackOptions MixedFolder(const ScratchDir& dir) {
  WriteBytes(dir / "in/cat/a.JPEG", PngFile(MakeImage(20, 30, 3)));
  WriteBytes(dir / "in/cat/b.jpg", EncodeJpeg(MakeImage(16, 16, 1), 95));
  WriteBytes(dir / "in/cat/c.png", PngFile(MakeImage(1, 1, 3)));
  WriteBytes(dir / "in/dog/long.png", PngFile(MakeImage(33, 500, 3)));
  WriteBytes(dir / "in/dog/more/cmyk.jpg", CmykJpeg(8, 8, Bytes(256, 200), JCS_CMYK, true));
  WriteBytes(dir / "in/dog/.DS_Store", {1});
  return FolderOptions(dir);
}

TEST(PackFolder, HoldoutBecomesASplitOfItsOwn) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  options.holdout = 2;
  const absl::StatusOr<PackSummary> rest = Pack(options);
  ASSERT_TRUE(rest.ok()) << rest.status();
  options.input_split = options.split;
  options.split = "holdout";
  options.part = SourcePart::kHoldout;
  const absl::StatusOr<PackSummary> held_out = Pack(options);
  ASSERT_TRUE(held_out.ok()) << held_out.status();
  EXPECT_EQ(rest->split.samples, 3);
  EXPECT_EQ(held_out->split.samples, 2);
  EXPECT_EQ((*OpenShards(dir / "out", "holdout"))->info().classes.size(), 2);
  options.holdout = 5;
  EXPECT_THAT(Error(options), AllOf(HasSubstr("--holdout=5"), HasSubstr("5 images")));
}

TEST(PackFolder, EveryKindOfImage) {
  const ScratchDir dir;
  const absl::StatusOr<PackSummary> summary = Pack(MixedFolder(dir));
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->split.samples, 5);
  EXPECT_EQ(summary->classes, 2);
  EXPECT_THAT(summary->warnings, ElementsAre());
  const auto data = *OpenShards(dir / "out", "train");
  EXPECT_THAT(data->info().classes, ElementsAre("cat", "dog"));
  EXPECT_EQ(data->info().height, 0);
  Image image;
  ASSERT_TRUE(data->Read(0, &image).ok());
  EXPECT_EQ(image.pixels, MakeImage(20, 30, 3).pixels);
  ASSERT_TRUE(data->Read(2, &image).ok());
  EXPECT_EQ(image.pixels.size(), 3u);
  ASSERT_TRUE(data->Read(3, &image).ok());
  EXPECT_EQ(image.width, 500);
  EXPECT_EQ(data->label(3), 1);
  EXPECT_THAT(data->Describe(4), HasSubstr("dog/more/cmyk.jpg"));
  ASSERT_TRUE(data->Read(4, &image).ok());
  EXPECT_NEAR(image.pixels[0], 200 * 200 / 255, 2);
}

TEST(PackFolder, JpegEncodingKeepsTheOriginalBytes) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  options.encoding = Encoding::kJpeg;
  const absl::StatusOr<PackSummary> summary = Pack(options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->reencoded, 3);
  const Bytes shard = ReadBytes(dir / "out/train-00000-of-00001.h5"), file = ReadBytes(dir / "in/cat/b.jpg");
  EXPECT_NE(memmem(shard.data(), shard.size(), file.data(), file.size()), nullptr);
  const auto data = *OpenShards(dir / "out", "train");
  Image original, packed;
  ASSERT_TRUE(DecodeImage(file, 3, &original).ok());
  ASSERT_TRUE(data->Read(1, &packed).ok());
  EXPECT_EQ(packed.pixels, original.pixels);
  ASSERT_TRUE(data->Read(0, &packed).ok());
  EXPECT_EQ(packed.width, 30);

  options.resize = 16;  // which cat/b.jpg has
  options.output = dir / "resized";
  const absl::StatusOr<PackSummary> resized = Pack(options);
  ASSERT_TRUE(resized.ok()) << resized.status();
  EXPECT_EQ(resized->reencoded, 4);
  const Bytes same = ReadBytes(dir / "resized/train-00000-of-00001.h5");
  EXPECT_NE(memmem(same.data(), same.size(), file.data(), file.size()), nullptr);
}

TEST(PackFolder, ResizesTheShortSide) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  options.resize = 10;
  ASSERT_TRUE(Pack(options).ok());
  const auto data = *OpenShards(dir / "out", "train");
  Image image;
  for (const auto& [sample, height, width] :
       {std::tuple{0, 10, 15}, {1, 10, 10}, {2, 10, 10}, {3, 10, 151}}) {
    ASSERT_TRUE(data->Read(sample, &image).ok());
    EXPECT_EQ(image.height, height);
    EXPECT_EQ(image.width, width);
  }
}

TEST(PackFolder, BadImagesAreNamedAndCounted) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  WriteBytes(dir / "in/cat/empty.jpg", {});
  WriteBytes(dir / "in/cat/notes.txt", {'h', 'i'});
  Bytes cut = EncodeJpeg(MakeImage(64, 64, 3), 95);
  cut.resize(cut.size() / 2);
  WriteBytes(dir / "in/dog/cut.jpg", cut);
  fs::create_symlink("nowhere", dir / "in/dog/link.jpg");
  options.allow_bad = 3;
  EXPECT_THAT(Error(options), AllOf(HasSubstr("4 bad images"), HasSubstr("cat/empty.jpg: empty file"),
                                    HasSubstr("cat/notes.txt: not a JPEG, PNG or WebP"),
                                    HasSubstr("dog/cut.jpg: damaged JPEG"), HasSubstr("dog/link.jpg")));
  ExpectNothingIn(dir / "out");
  options.allow_bad = 4;
  const absl::StatusOr<PackSummary> summary = Pack(options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->split.samples, 5);
  ASSERT_EQ(summary->split.rejects.size(), 4u);
  EXPECT_EQ(ReadManifest(dir / "out")->splits["train"].rejects[1].name, "cat/notes.txt");
  EXPECT_THAT(summary->warnings, ElementsAre());

  WriteBytes(dir / "in/owl/cut.jpg", cut);
  options.allow_bad = 5;
  options.output = dir / "without";
  const absl::StatusOr<PackSummary> without = Pack(options);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_THAT(without->warnings,
              ElementsAre("classes without images, because all of theirs are left out: 1; the first is owl"));
  options.strict = true;
  options.output = dir / "strict";
  EXPECT_THAT(Error(options), AllOf(HasSubstr("--strict"), HasSubstr("owl")));
  ExpectNothingIn(dir / "strict");
}

TEST(PackFolder, WarningsAreErrorsWhenStrict) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  fs::create_directories(dir / "in/bird");
  WriteBytes(dir / "in/README", {'x'});
  const absl::StatusOr<PackSummary> summary = Pack(options);
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->classes, 2);
  EXPECT_THAT(summary->warnings,
              ElementsAre(HasSubstr("1 files outside the class folders are left out; the first is README"),
                          "folder bird has no images and is not a class"));
  options.strict = true;
  options.output = dir / "strict";
  EXPECT_THAT(Error(options), AllOf(HasSubstr("README"), HasSubstr("bird")));
  ExpectNothingIn(dir / "strict");
}

TEST(PackFolder, WarnsIfTheClassesAreParts) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  fs::create_directory(dir / "all");
  fs::rename(dir / "in", dir / "all/train");
  options.input = dir / "all";
  EXPECT_THAT(Pack(options)->warnings, ElementsAre(AllOf(HasSubstr("the classes are called train"),
                                                         HasSubstr("from " + dir.path() + "/all/train"))));
}

TEST(PackFolder, SplitsShareClassesAndTrainingStatistics) {
  const ScratchDir dir;
  ASSERT_TRUE(Pack(MixedFolder(dir)).ok());
  PackOptions val = FolderOptions(dir);
  val.input = dir / "val";
  val.split = "val";
  WriteBytes(dir / "val/dog/x.png", PngFile(MakeImage(5, 5, 3, 9)));
  const absl::StatusOr<PackSummary> summary = Pack(val);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(summary->warnings, ElementsAre("class cat has no images"));
  const auto train = *OpenShards(dir / "out", "train"), data = *OpenShards(dir / "out", "val");
  EXPECT_EQ(data->label(0), 1);
  EXPECT_EQ(data->info().stats.mean, train->info().stats.mean);
  EXPECT_NE(summary->split.stats.mean, train->info().stats.mean);
  EXPECT_NE(data->info().uuid, train->info().uuid);

  WriteBytes(dir / "val/eel/x.png", PngFile(MakeImage(5, 5, 3)));
  EXPECT_THAT(Error(val), HasSubstr("folder eel of " + (dir / "val") + " is not one of the 2 classes"));
}

TEST(PackFolder, ClassesFileGivesTheOrder) {
  const ScratchDir dir;
  PackOptions options = MixedFolder(dir);
  WriteBytes(dir / "in/classes.txt", {'d', 'o', 'g', '\r', '\n', 'c', 'a', 't', '\n'});
  ASSERT_TRUE(Pack(options).ok());
  const auto data = *OpenShards(dir / "out", "train");
  EXPECT_THAT(data->info().classes, ElementsAre("dog", "cat"));
  EXPECT_THAT(data->Describe(0), HasSubstr("dog/long.png"));
}

TEST(PackFolder, UnusableInputIsAnError) {
  const ScratchDir dir;
  PackOptions options = FolderOptions(dir);
  EXPECT_THAT(Error(options), HasSubstr("cannot list " + options.input));
  fs::create_directories(options.input);
  EXPECT_THAT(Error(options), HasSubstr("no class folders"));
  fs::create_directories(options.input + "/empty");
  EXPECT_THAT(Error(options), HasSubstr("no class folders with images"));
  fs::remove(options.input + "/empty");
  WriteBytes(options.input + "/latin1-\xE9/a.png", PngFile(MakeImage(2, 2, 3)));
  EXPECT_THAT(Error(options), HasSubstr("\"latin1-\\xe9\" is not UTF-8"));
  options.split = "../x";
  EXPECT_THAT(Error(options), HasSubstr("--split=../x: "));
}

TEST(PackIdx, PlainAndGzippedAreTheSame) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  ASSERT_TRUE(Pack(options).ok());
  for (const char* name : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"}) {
    const Bytes bytes = ReadBytes(options.input + "/" + name);
    const gzFile out = gzopen((options.input + "/" + name + ".gz").c_str(), "wb");
    gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(out);
    fs::remove(options.input + "/" + name);
  }
  options.output = dir / "gz";
  ASSERT_TRUE(Pack(options).ok());
  EXPECT_EQ(Contents(dir / "out"), Contents(dir / "gz"));

  const std::string images = options.input + "/train-images-idx3-ubyte.gz";
  fs::resize_file(images, fs::file_size(images) - 9);
  EXPECT_THAT(Error(options), HasSubstr("train-images-idx3-ubyte.gz is damaged or truncated"));
}

TEST(PackIdx, StatisticsOfThePixels) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  Bytes file;
  for (const uint32_t word : {0x803u, 2u, 1u, 2u}) AppendWord(word, &file);
  file.insert(file.end(), {0, 255, 255, 255});
  WriteBytes(options.input + "/train-images-idx3-ubyte", file);
  WriteBytes(options.input + "/train-labels-idx1-ubyte", IdxLabels({0, 9}));
  const absl::StatusOr<PackSummary> summary = Pack(options);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_FLOAT_EQ(summary->split.stats.mean[0], 0.75f);
  EXPECT_FLOAT_EQ(summary->split.stats.stddev[0], 0.4330127f);
}

TEST(PackIdx, WrongFilesAreErrors) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  const std::string images = options.input + "/train-images-idx3-ubyte",
                    labels = options.input + "/train-labels-idx1-ubyte";
  const Bytes good = ReadBytes(images);
  Bytes bad = good;
  bad.pop_back();
  WriteBytes(images, bad);
  EXPECT_THAT(Error(options), HasSubstr("not what its header says"));
  WriteBytes(images, ReadBytes(labels));
  EXPECT_THAT(Error(options), HasSubstr("not an IDX file"));
  WriteBytes(images, good);
  WriteBytes(labels, IdxLabels({1, 2, 3}));
  EXPECT_THAT(Error(options), HasSubstr("has 24 images, "));
  WriteBytes(labels, IdxLabels(Bytes(24, 10)));
  EXPECT_THAT(Error(options), AllOf(HasSubstr("label 10 of sample 0"), HasSubstr("classes.txt")));
  fs::remove(labels);
  EXPECT_THAT(Error(options), HasSubstr("cannot open " + labels));
  options.split = "middle";
  EXPECT_THAT(Error(options), HasSubstr("not \"middle\""));
  ExpectNothingIn(dir / "out");
}

TEST(Pack, SameBytesForAnyNumberOfJobs) {
  const ScratchDir dir;
  for (const Encoding encoding : {Encoding::kRaw, Encoding::kJpeg}) {
    PackOptions options = MixedFolder(dir);
    options.encoding = encoding;
    options.shard_size = 4096;
    for (const int jobs : {1, 4}) {
      options.jobs = jobs;
      options.output = dir / (std::string(NameOf(encoding)) + std::to_string(jobs));
      ASSERT_TRUE(Pack(options).ok());
    }
  }
  EXPECT_GT(Contents(dir / "raw1").size(), 2u);
  EXPECT_EQ(Contents(dir / "raw1"), Contents(dir / "raw4"));
  EXPECT_EQ(Contents(dir / "jpeg1"), Contents(dir / "jpeg4"));
}

// Packing again keeps valid shards and writes damaged ones again.
TEST(Pack, RepairsWhatIsDamaged) {
  const ScratchDir dir;
  const PackOptions options = SmallIdx(dir);
  ASSERT_TRUE(Pack(options).ok());
  const auto sound = Contents(dir / "out");
  EXPECT_EQ(Pack(options)->kept_shards, 3);
  EXPECT_EQ(Contents(dir / "out"), sound);
  fs::remove(dir / "out/train-00000-of-00003.h5");
  fs::resize_file(dir / "out/train-00002-of-00003.h5", 100);
  EXPECT_EQ(Pack(options)->kept_shards, 1);
  EXPECT_EQ(Contents(dir / "out"), sound);
}

TEST(PackDeathTest, KilledAndRunAgainGivesTheSameBytes) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  ASSERT_TRUE(Pack(options).ok());
  options.output = dir / "killed";
  const auto die_in_second_shard = [&] {
    (void)Pack(options, [](const char* phase, int64_t done, int64_t) {
      if (std::strcmp(phase, "write") == 0 && done == 12) std::raise(SIGKILL);
    });
  };
  EXPECT_EXIT(die_in_second_shard(), KilledBySignal(SIGKILL), "");
  const auto left = Contents(dir / "killed");
  EXPECT_TRUE(left.contains("train-00000-of-00003.h5"));
  EXPECT_TRUE(left.contains("train-00001-of-00003.h5.tmp"));
  EXPECT_TRUE(left.contains(".deeper-lock")) << "of the killed process";
  EXPECT_EQ(left.size(), 3u);
  EXPECT_THAT(OpenShards(dir / "killed", "train").status().message(), HasSubstr("packing has not ended"));

  WriteBytes(dir / "killed/train-00000-of-00009.h5.tmp", {1});  // of yet another attempt
  EXPECT_EQ(Pack(options)->kept_shards, 1);
  EXPECT_EQ(Contents(dir / "killed"), Contents(dir / "out"));
}

// A limit on file sizes simulates a full disk.
TEST(PackDeathTest, FullDiskLeavesNothingAndSaysSo) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  WriteIdx(dir / "idx", "train", 2000);
  options.shard_size = 1 << 20;
  const auto run_out_of_space = [&](rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = Pack(options).status();
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::_Exit(status.code() == absl::StatusCode::kResourceExhausted ? 0 : 1);
  };
  for (const rlim_t bytes : {2000, 40000, 180000, 250000}) {
    EXPECT_EXIT(run_out_of_space(bytes), ExitedWithCode(0),
                "cannot .*train-00000-of-00001.h5.tmp: File too large; free space")
        << bytes;
    ExpectNothingIn(dir / "out");
  }
}

TEST(Pack, UnusableOutputIsAnError) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  WriteBytes(dir / "file", {1});
  options.output = dir / "file/out";
  EXPECT_THAT(Error(options), HasSubstr("cannot create directory " + options.output));
}

TEST(PackDeathTest, ReadOnlyOutputIsAnErrorBeforeAnyWork) {
  const ScratchDir dir;
  const PackOptions options = SmallIdx(dir);
  fs::create_directory(options.output);
  for (const std::string& path : {dir.path(), options.output}) fs::permissions(path, fs::perms{0555});
  const auto pack_without_rights = [&] {
    if (geteuid() == 0 && setuid(65534) != 0) std::_Exit(2);  // nothing is read-only to root
    const absl::Status status = Pack(options, [](const char*, int64_t, int64_t) { std::_Exit(3); }).status();
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::_Exit(status.code() == absl::StatusCode::kPermissionDenied ? 0 : 1);
  };
  EXPECT_EXIT(pack_without_rights(), ExitedWithCode(0), "cannot write into .*out: Permission denied; change");
  fs::permissions(dir.path(), fs::perms{0755});
}

TEST(Pack, AnotherDatasetInTheOutputIsLeftAlone) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  ASSERT_TRUE(Pack(options).ok());
  const auto before = Contents(dir / "out");
  WriteIdx(dir / "idx", "train", 23);
  EXPECT_THAT(Error(options),
              AllOf(HasSubstr("from another packing of split train"), HasSubstr("output directory")));
  WriteIdx(dir / "idx", "train", 24);
  options.shard_size *= 2;
  EXPECT_THAT(Error(options), HasSubstr("from another packing"));
  EXPECT_EQ(Contents(dir / "out"), before);
}

TEST(Pack, TheUuidIsOfTheContentNotOfItsCut) {
  const ScratchDir dir;
  PackOptions options = SmallIdx(dir);
  const std::string uuid = Pack(options)->split.uuid;
  options.output = dir / "other";
  options.shard_size *= 2;
  EXPECT_EQ(Pack(options)->split.uuid, uuid);
  options.output = dir / "third";
  WriteIdx(dir / "idx", "train", 23);
  EXPECT_NE(Pack(options)->split.uuid, uuid);
}

}  // namespace
}  // namespace deeper
