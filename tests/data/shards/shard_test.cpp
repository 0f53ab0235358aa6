// Shards, and how the reader handles each kind of damage.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <numeric>

#include "data/load/dataset.h"
#include "data/load/loader.h"
#include "data/shards/read_shards.h"
#include "data/shards/shard_file.h"
#include "data/shards/shard_writer.h"
#include "tests/data/open_shards.h"
#include "tests/data/small_dataset.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kMiddle[] = "out/train-00001-of-00003.h5";

class ShardsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<PackSummary> packed = Pack(SmallIdx(dir_));
    ASSERT_TRUE(packed.ok()) << packed.status();
  }
  std::string OpenError() { return std::string(OpenShards(dir_ / "out", "train").status().message()); }

  ScratchDir dir_;
};

TEST_F(ShardsTest, RoundTrip) {
  const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(dir_ / "out", "train");
  ASSERT_TRUE(data.ok()) << data.status();
  const DatasetInfo& info = (*data)->info();
  EXPECT_EQ(info.samples, 24);
  EXPECT_EQ(info.split, "train");
  EXPECT_EQ(info.channels, 1);
  EXPECT_EQ(info.height, 7);
  EXPECT_EQ(info.width, 9);
  EXPECT_EQ(info.classes.size(), 10u);
  EXPECT_EQ(info.uuid.size(), 32u);
  Image image;
  for (int i = 0; i < 24; ++i) {
    ASSERT_TRUE((*data)->Read(i, &image).ok());
    EXPECT_EQ(image.height, 7);
    EXPECT_EQ(image.width, 9);
    EXPECT_EQ(image.channels, 1);
    EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, i).pixels);
    EXPECT_EQ((*data)->label(i), i % 10);
  }
  EXPECT_EQ((*data)->Describe(17),
            (dir_ / "out/train-00002-of-00003.h5") + ", sample 1 (train-images-idx3-ubyte[17])");
}

// The sample in each row of the first packed batch, identified by its pixels.
std::vector<int64_t> PackedSamples(const Dataset& data, int image_size) {
  LoaderOptions options;
  options.image_size = image_size;
  options.channels = 1;
  options.global_batch = options.rows = data.info().samples;
  options.packed = true;
  const std::unique_ptr<Loader> loader = *MakeLoader(data, options);
  const absl::StatusOr<Batch> batch = loader->Next();
  EXPECT_TRUE(batch.ok()) << batch.status();
  std::vector<int64_t> samples;
  for (int64_t row = 0; batch.ok() && row < batch->rows; ++row) {
    const PackedImage& entry = reinterpret_cast<const PackedImage*>(batch->packed)[row];
    const auto* pixels = reinterpret_cast<const uint8_t*>(batch->packed + entry.offset);
    const int sample = static_cast<int>(batch->samples[row]);
    const Image expected = MakeImage(entry.height, entry.width, 1, sample);
    EXPECT_TRUE(std::equal(expected.pixels.begin(), expected.pixels.end(), pixels)) << sample;
    samples.push_back(sample);
  }
  return samples;
}

TEST_F(ShardsTest, PixelsGoStraightIntoAPackedBatch) {
  const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(dir_ / "out", "train");
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->StoredPixels(5).height, 7);
  EXPECT_EQ((*data)->StoredPixels(5).width, 9);
  std::vector<int64_t> samples = PackedSamples(**data, 7);
  std::sort(samples.begin(), samples.end());
  std::vector<int64_t> all(24);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(samples, all);

  Bytes shard = ReadBytes(dir_ / kMiddle);
  const Bytes sample = MakeImage(7, 9, 1, 11).pixels;
  const auto stored = std::search(shard.begin(), shard.end(), sample.begin(), sample.end());
  ASSERT_NE(stored, shard.end());
  *stored ^= 1;
  WriteBytes(dir_ / kMiddle, shard);
  std::vector<uint8_t> pixels(63);
  const absl::Status read = (*data)->ReadPixels(11, pixels.data());
  EXPECT_TRUE(absl::IsDataLoss(read)) << read;
  EXPECT_THAT(read.message(), HasSubstr("train-images-idx3-ubyte[11]"));
}

TEST_F(ShardsTest, PastThePageCache) {
  const absl::StatusOr<std::unique_ptr<Dataset>> data =
      OpenSplit(dir_ / "out", *ReadSplitIndex(dir_ / "out", "train"), {.direct_io = true});
  if (absl::IsFailedPrecondition(data.status())) {
    EXPECT_THAT(data.status().message(), HasSubstr("does not support O_DIRECT"));
    GTEST_SKIP() << data.status().message();
  }
  ASSERT_TRUE(data.ok()) << data.status();
  Image image;
  for (int i = 0; i < 24; ++i) {
    ASSERT_TRUE((*data)->Read(i, &image).ok());
    EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, i).pixels);
  }
  fs::resize_file(dir_ / "out/train-00000-of-00003.h5", 1000);
  EXPECT_THAT((*data)->Read(1, &image).message(), HasSubstr("is truncated"));
}

TEST_F(ShardsTest, OpenSaysWhatIsMissing) {
  EXPECT_THAT(OpenShards(dir_ / "out", "val").status().message(), HasSubstr("no split \"val\", only train"));
  EXPECT_THAT(OpenShards(dir_ / "idx", "train").status().message(),
              HasSubstr("manifest.json: not a packed dataset"));
  fs::remove(dir_ / kMiddle);
  fs::remove(dir_ / "out/train-00002-of-00003.h5");
  EXPECT_THAT(OpenError(), AllOf(HasSubstr("train-00001-of-00003.h5: No such file"),
                                 HasSubstr("train-00002-of-00003.h5: No such file")));
}

TEST_F(ShardsTest, TruncatedShardFailsAtOpen) {
  const auto size = fs::file_size(dir_ / kMiddle);
  fs::resize_file(dir_ / kMiddle, size - 1);
  EXPECT_THAT(OpenError(), HasSubstr("train-00001-of-00003.h5"));
  fs::resize_file(dir_ / kMiddle, size + 1);
  EXPECT_THAT(OpenError(), HasSubstr("train-00001-of-00003.h5"));
  fs::resize_file(dir_ / kMiddle, 0);
  EXPECT_THAT(OpenError(), HasSubstr("train-00001-of-00003.h5"));
}

TEST_F(ShardsTest, DuplicateShardsFailAtOpen) {
  fs::copy_file(dir_ / kMiddle, dir_ / "out/train-00003-of-00004.h5");
  EXPECT_THAT(OpenError(), HasSubstr("train-00003-of-00004.h5 is not in the manifest"));
  fs::remove(dir_ / "out/train-00003-of-00004.h5");
  fs::copy_file(dir_ / kMiddle, dir_ / "out/train-00000-of-00003.h5", fs::copy_options::overwrite_existing);
  EXPECT_THAT(OpenError(),
              HasSubstr("train-00000-of-00003.h5 is a duplicate of shard 1, in the place of shard 0"));
}

TEST_F(ShardsTest, ShardOfAnotherDatasetFailsAtOpen) {
  const ScratchDir other;
  PackOptions options = SmallIdx(other);
  WriteBytes(other / "idx/classes.txt", {'a', '\n', 'b', '\n', 'c', '\n', 'd', '\n', 'e', '\n', 'f', '\n',
                                         'g', '\n', 'h', '\n', 'i', '\n', 'j'});
  ASSERT_TRUE(Pack(options).ok());
  fs::copy_file(other / kMiddle, dir_ / kMiddle, fs::copy_options::overwrite_existing);
  EXPECT_THAT(OpenError(), HasSubstr("train-00001-of-00003.h5 belongs to another dataset"));
}

TEST_F(ShardsTest, ManifestVouchesForItself) {
  Bytes text = ReadBytes(dir_ / "out/manifest.json");
  const std::string all(text.begin(), text.end());
  text[all.find("0.", all.find("\"mean\"")) + 2] ^= 1;
  WriteBytes(dir_ / "out/manifest.json", text);
  EXPECT_THAT(OpenError(), HasSubstr("does not match its own checksum"));
  text.resize(text.size() / 2);
  WriteBytes(dir_ / "out/manifest.json", text);
  EXPECT_THAT(OpenError(), HasSubstr("manifest.json is damaged"));
}

TEST_F(ShardsTest, FlipInAnIndexFailsAtOpen) {
  const absl::StatusOr<Hdf5File> file = Hdf5File::Open(dir_ / kMiddle);
  for (const auto& [name, type] : {std::pair{"offset", Hdf5Type::kU64},
                                   {"length", Hdf5Type::kU32},
                                   {"label", Hdf5Type::kU16},
                                   {"crc32c", Hdf5Type::kU32},
                                   {"width", Hdf5Type::kU16},
                                   {"height", Hdf5Type::kU16},
                                   {"flags", Hdf5Type::kU16}}) {
    const absl::StatusOr<Hdf5Extent> extent = file->Locate(name, type);
    ASSERT_TRUE(extent.ok()) << extent.status();
    FlipBit(dir_ / kMiddle, extent->offset + 2);
    EXPECT_THAT(OpenError(), HasSubstr("train-00001-of-00003.h5: the index does not match its index_xxh3"))
        << name;
    FlipBit(dir_ / kMiddle, extent->offset + 2);
  }
  EXPECT_EQ(OpenError(), "");
}

TEST_F(ShardsTest, FlipInASampleFailsAtItsRead) {
  const absl::StatusOr<Hdf5Extent> data = Hdf5File::Open(dir_ / kMiddle)->Locate("data", Hdf5Type::kU8);
  FlipBit(dir_ / kMiddle, data->offset + 3 * 64 + 5);
  const absl::StatusOr<std::unique_ptr<Dataset>> dataset = OpenShards(dir_ / "out", "train");
  ASSERT_TRUE(dataset.ok());
  Image image;
  EXPECT_TRUE((*dataset)->Read(10, &image).ok());
  const absl::Status read = (*dataset)->Read(11, &image);
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(
      read.message(),
      HasSubstr("train-00001-of-00003.h5, sample 3 (train-images-idx3-ubyte[11]): its bytes do not match"));
}

// Flips any bit of the file: opening or reading must fail, or give the same data.
TEST_F(ShardsTest, NoFlipIsEverSilent) {
  const Bytes sound = ReadBytes(dir_ / kMiddle);
  int found = 0;
  for (size_t at = 0; at < sound.size(); at += 101) {
    FlipBit(dir_ / kMiddle, at);
    const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(dir_ / "out", "train");
    bool error = !data.ok();
    Image image;
    for (int i = 8; i < 16 && !error; ++i) {
      error = !(*data)->Read(i, &image).ok();
      if (error) break;
      EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, i).pixels) << "flip at " << at;
    }
    found += error;
    WriteBytes(dir_ / kMiddle, sound);
  }
  EXPECT_GT(found, 0);
}

TEST_F(ShardsTest, OpenFilesOutliveTheirNames) {
  const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(dir_ / "out", "train");
  Image image;
  EXPECT_TRUE((*data)->Read(8, &image).ok());
  fs::rename(dir_ / kMiddle, dir_ / "elsewhere");
  WriteBytes(dir_ / kMiddle, Bytes(10));
  EXPECT_TRUE((*data)->Read(9, &image).ok());
  fs::resize_file(dir_ / "elsewhere", 1000);
  EXPECT_THAT((*data)->Read(9, &image).message(), HasSubstr("is truncated"));
}

TEST_F(ShardsTest, ShardsReplacedInMidRunAreFound) {
  const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(dir_ / "out", "train");
  Image image;
  fs::copy_file(dir_ / "out/train-00002-of-00003.h5", dir_ / kMiddle, fs::copy_options::overwrite_existing);
  absl::Status read = (*data)->Read(9, &image);  // the first of its shard
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(read.message(),
              AllOf(HasSubstr("train-00001-of-00003.h5, sample 1"), HasSubstr("was replaced")));
  fs::resize_file(dir_ / kMiddle, 4000);
  read = (*data)->Read(10, &image);
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(read.message(), AllOf(HasSubstr("train-00001-of-00003.h5, sample 2"),
                                    HasSubstr("changed while it was in use")));

  ASSERT_TRUE((*data)->Read(0, &image).ok());
  fs::resize_file(dir_ / "out/train-00000-of-00003.h5", 1000);
  EXPECT_THAT((*data)->Read(1, &image).message(),
              AllOf(HasSubstr("is truncated"), HasSubstr("changed while it was in use")));
}

TEST_F(ShardsTest, AnIndexThatWasSentOpensTheSplitWithoutReadingIt) {
  const absl::StatusOr<std::string> index = ReadSplitIndex(dir_ / "out", "train");
  ASSERT_TRUE(index.ok()) << index.status();
  fs::remove(dir_ / "out/manifest.json");
  const std::string hidden = dir_ / "out/train-00002-of-00003.h5.hidden";
  fs::rename(dir_ / "out/train-00002-of-00003.h5", hidden);
  const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenSplit(dir_ / "out", *index);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ((*data)->info().samples, 24);
  EXPECT_EQ((*data)->label(17), 7);
  fs::rename(hidden, dir_ / "out/train-00002-of-00003.h5");
  Image image;
  ASSERT_TRUE((*data)->Read(17, &image).ok());
  EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, 17).pixels);

  fs::rename(dir_ / "out", dir_ / "elsewhere");  // a machine that does not have the directory
  EXPECT_THAT(OpenSplit(dir_ / "out", *index).status().message(),
              HasSubstr("train-00000-of-00003.h5: No such file"));
}

// Opens a shard with the content `index` and a right hash of it.
absl::Status OpenCrafted(const std::string& path, const ShardHeader& header, const ShardIndex& index) {
  absl::StatusOr<Hdf5File> file = Hdf5File::Create(path);
  WriteHeaderAndIndex(header, index, &*file);
  file->Reserve("data", Hdf5Type::kU8, {128});
  if (absl::Status closed = file->Close(); !closed.ok()) return closed;
  return ShardFile::Open(path).status();
}

TEST(ShardFile, CraftedIndexesAreRejected) {
  const ScratchDir dir;
  ShardHeader header;
  header.samples = header.total_samples = 1;
  ShardIndex good;
  good.offset = {64};
  good.length = {12};
  good.label = {1};
  good.width = good.height = {2};
  good.crc32c = {0};
  good.flags = {0};
  good.names = FixedStrings({"x.png"});
  good.classes = FixedStrings({"a", "b"});
  const std::string path = dir / "x.h5";
  ASSERT_TRUE(OpenCrafted(path, header, good).ok());

  ShardIndex bad = good;
  bad.label = {2};
  EXPECT_THAT(OpenCrafted(path, header, bad).message(),
              AllOf(HasSubstr(path + ", sample 0 (x.png)"), HasSubstr("label 2, but there are 2 classes")));
  bad = good;
  bad.offset = {117};
  EXPECT_THAT(OpenCrafted(path, header, bad).message(), HasSubstr("outside the 128 bytes"));
  bad.offset = {std::numeric_limits<uint64_t>::max() - 5};
  EXPECT_THAT(OpenCrafted(path, header, bad).message(), HasSubstr("outside the 128 bytes"));
  bad = good;
  bad.length = {11};
  EXPECT_THAT(OpenCrafted(path, header, bad).message(), HasSubstr("not width x height x channels"));
  bad = good;
  bad.label = {1, 1};
  EXPECT_THAT(OpenCrafted(path, header, bad).message(), HasSubstr("n_samples = 1 entries"));
  header.samples = -1;
  EXPECT_THAT(OpenCrafted(path, header, good).message(), HasSubstr("n_samples = -1 entries"));
}

TEST(ShardFile, OtherHdf5FilesAreNoShards) {
  const ScratchDir dir;
  absl::StatusOr<Hdf5File> file = Hdf5File::Create(dir / "x.h5");
  file->Write("data", std::vector<uint8_t>{1});
  ASSERT_TRUE(file->Close().ok());
  EXPECT_THAT(ShardFile::Open(dir / "x.h5").status().message(), HasSubstr("x.h5 is not a shard"));
}

// So that the next attempt reads from disk.
TEST(ReadSample, DropsAPageFromTheCacheThatTheSampleFillsInPart) {
  const ScratchDir dir;
  struct statfs system = {};
  ASSERT_EQ(statfs(dir.path().c_str(), &system), 0);
  if (system.f_type == TMPFS_MAGIC) GTEST_SKIP() << "a tmpfs has no other copy to read";
  WriteBytes(dir / "x", Bytes(3200, 7));
  const File file = *File::Open(dir / "x", O_RDONLY);
  ASSERT_TRUE(file.Sync().ok());
  Bytes sample(3072);
  EXPECT_FALSE(ReadSample(file, 64, sample.size(), /*crc32c=*/1, sample.data()).ok());
  void* const mapped = mmap(nullptr, sample.size(), PROT_READ, MAP_SHARED, file.fd(), 0);
  ASSERT_NE(mapped, MAP_FAILED);
  unsigned char resident = 0xFF;
  EXPECT_EQ(mincore(mapped, sample.size(), &resident), 0);
  EXPECT_EQ(resident & 1, 0);
  munmap(mapped, sample.size());
}

TEST(ShardWriter, UnfinishedShardsLeaveNothing) {
  const ScratchDir dir;
  ShardHeader header;
  header.samples = header.total_samples = 1;
  ShardIndex index;
  index.offset = {0};
  index.length = {3};
  index.label = index.flags = {0};
  index.width = index.height = {1};
  index.crc32c = {123};
  index.names = index.classes = FixedStrings({"x"});
  {
    absl::StatusOr<ShardWriter> writer = ShardWriter::Create(dir / "x.h5", header, index);
    ASSERT_TRUE(writer.ok()) << writer.status();
    EXPECT_TRUE(fs::exists(dir / "x.h5.tmp"));
    EXPECT_THAT(writer->Put(0, Bytes{1, 2, 3}).message(), HasSubstr("x changed while it was being packed"));
    EXPECT_THAT(writer->Commit().message(), HasSubstr("do not match their CRC32C"));
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

}  // namespace
}  // namespace deeper
