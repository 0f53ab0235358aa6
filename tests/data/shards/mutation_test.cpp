// Shards and manifests with randomly changed bytes, and crafted ones with right checksums. Reading must fail
// or give the same data. $DEEPER_MUTATIONS is the number of each kind, 300 by default; docs/benchmarks.md has
// the results of 10,000.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/io/checksum.h"
#include "data/load/dataset.h"
#include "data/shards/shard_file.h"
#include "tests/data/open_shards.h"
#include "tests/data/small_dataset.h"
#include "tests/mutate.h"

namespace deeper {
namespace {

using nlohmann::json;

constexpr int kSamples = 8;

enum Ending { kNotOpened, kNotRead, kTheSame, kEndings };

class MutationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const PackOptions options = SmallIdx(dir_);
    WriteIdx(dir_ / "idx", "train", kSamples);  // one shard
    ASSERT_TRUE(Pack(options).ok());
  }

  // `attempt` makes one mutation and returns its outcome.
  void TryAll(const char* what, const std::function<Ending(Random*)>& attempt) {
    std::array<int64_t, kEndings> ended{};
    for (int64_t seed = 0; seed < Mutations() && !HasFailure(); ++seed) {
      SCOPED_TRACE(seed);
      Random random(seed);
      ++ended[attempt(&random)];
    }
    EXPECT_GT(ended[kNotOpened], 0);
    std::printf("%s: %ld; refused when opened: %ld, when read: %ld; no difference: %ld\n", what, Mutations(),
                ended[kNotOpened], ended[kNotRead], ended[kTheSame]);
  }

  Ending OpenAndRead() {
    const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(dir_ / "out", "train");
    if (!data.ok()) return kNotOpened;
    EXPECT_EQ((*data)->info().samples, kSamples);
    EXPECT_EQ((*data)->info().classes.size(), 10u);
    Image image;
    for (int i = 0; i < kSamples; ++i) {
      if (!(*data)->Read(i, &image).ok()) return kNotRead;
      EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, i).pixels);
      EXPECT_EQ((*data)->label(i), i);
    }
    return kTheSame;
  }

  const ScratchDir dir_;
  const std::string shard_ = dir_ / "out/train-00000-of-00001.h5", manifest_ = dir_ / "out/manifest.json";
};

TEST_F(MutationTest, Shards) {
  const Bytes sound = ReadBytes(shard_);
  TryAll("mutated shards", [&](Random* random) {
    WriteBytes(shard_, Mutate(sound, random));
    return OpenAndRead();
  });
}

TEST_F(MutationTest, Manifests) {
  const Bytes sound = ReadBytes(manifest_);
  TryAll("mutated manifests", [&](Random* random) {
    WriteBytes(manifest_, Mutate(sound, random));
    return OpenAndRead();
  });
}

// Replaces any value in the manifest by a number, a text or null.
TEST_F(MutationTest, ManifestsWithTheRightChecksum) {
  const Bytes sound = ReadBytes(manifest_);
  json document = json::parse(sound);
  document.erase("checksum");
  const json flat = document.flatten();
  TryAll("manifests with the right checksum", [&](Random* random) {
    json crafted = document;
    const auto field = std::next(flat.begin(), static_cast<ptrdiff_t>(random->Below(flat.size())));
    json& value = crafted[json::json_pointer(field.key())];
    switch (random->Below(4)) {
      case 0:
        value = random->Crafted(kSamples);
        break;
      case 1:
        value = -static_cast<int64_t>(random->Crafted(kSamples) >> 1);
        break;
      case 2:
        value = std::next(flat.begin(), static_cast<ptrdiff_t>(random->Below(flat.size()))).value();
        break;
      default:
        value = json();
    }
    const std::string text = crafted.dump();
    crafted["checksum"] = Xxh3(text.data(), text.size()).Hex();
    const std::string whole = crafted.dump();
    WriteBytes(manifest_, {whole.begin(), whole.end()});
    return OpenAndRead();
  });
}

// Changes offsets, lengths and checksums of samples in an index whose own hash is right.
TEST_F(MutationTest, IndexesWithTheRightHash) {
  const ShardFile sound = *ShardFile::Open(shard_);
  Bytes data((kSamples - 1) * 64 + 63);
  for (int i = 0; i < kSamples; ++i) {
    const Image image = MakeImage(7, 9, 1, i);
    std::copy(image.pixels.begin(), image.pixels.end(), data.begin() + 64 * i);
  }
  TryAll("indexes with the right hash", [&](Random* random) {
    ShardIndex index = sound.index();
    for (size_t change = random->Below(3) + 1; change > 0; --change) {
      const size_t i = random->Below(kSamples);
      switch (random->Below(4)) {
        case 0:
          index.offset[i] = random->Crafted(data.size());
          break;
        case 1:
          index.length[i] = static_cast<uint32_t>(random->Crafted(data.size()));
          break;
        case 2:
          index.crc32c[i] = index.crc32c[random->Below(kSamples)];
          break;
        default:
          index.label[i] = static_cast<uint16_t>(10 + random->Crafted(100));
      }
    }
    {
      absl::StatusOr<Hdf5File> file = Hdf5File::Create(dir_ / "crafted.h5");
      WriteHeaderAndIndex(sound.header(), index, &*file);
      file->Write("data", data);
    }
    const absl::StatusOr<ShardFile> crafted = ShardFile::Open(dir_ / "crafted.h5");
    if (!crafted.ok()) return kNotOpened;
    Bytes bytes;
    for (int i = 0; i < kSamples; ++i) {
      if (!crafted->Read(i, &bytes).ok()) return kNotRead;
      EXPECT_EQ(bytes, MakeImage(7, 9, 1, i).pixels);
    }
    return kTheSame;
  });
}

}  // namespace
}  // namespace deeper
