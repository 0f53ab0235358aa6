// Shards and manifests with bytes changed at random: an error, or what is read is the same.
// DEEPER_MUTATIONS=10000 tries more of them than a test run has time for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "data/dataset.h"
#include "tests/data/small_dataset.h"

namespace deeper {
namespace {

constexpr char kShard[] = "out/train-00001-of-00003.h5", kManifest[] = "out/manifest.json";

int64_t Mutations() {
  const char* asked = std::getenv("DEEPER_MUTATIONS");
  return asked == nullptr ? 300 : std::atoll(asked);
}

// One to four changes of the kinds that disks, transfers and attackers make.
Bytes Mutate(Bytes bytes, std::mt19937_64* random) {
  const auto below = [&](size_t limit) {
    return static_cast<size_t>((*random)() % std::max<size_t>(1, limit));
  };
  for (size_t change = below(4) + 1; change > 0 && !bytes.empty(); --change) {
    const size_t at = below(bytes.size()), count = std::min(bytes.size() - at, below(64) + 1);
    const auto begin = bytes.begin() + static_cast<ptrdiff_t>(at);
    switch (below(6)) {
      case 0:
        bytes[at] ^= static_cast<uint8_t>(1 << below(8));
        break;
      case 1:
        bytes[at] = static_cast<uint8_t>(below(256));
        break;
      case 2:
        std::fill_n(begin, count, below(2) == 0 ? uint8_t{0} : uint8_t{0xff});
        break;
      case 3:
        std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(below(bytes.size() - count + 1)), count, begin);
        break;
      case 4:
        bytes.erase(begin, begin + static_cast<ptrdiff_t>(count));
        break;
      default:
        bytes.resize(at);
    }
  }
  return bytes;
}

// Whether an error was found. What is read without one must be SmallIdx's.
bool FailsOrReadsTheSame(const std::string& directory) {
  const absl::StatusOr<std::unique_ptr<Dataset>> data = OpenShards(directory, "train");
  if (!data.ok()) return true;
  EXPECT_EQ((*data)->info().samples, 24);
  EXPECT_EQ((*data)->info().classes.size(), 10u);
  Image image;
  for (int i = 0; i < 24; ++i) {
    if (!(*data)->Read(i, &image).ok()) return true;
    EXPECT_EQ(image.pixels, MakeImage(7, 9, 1, i).pixels);
    EXPECT_EQ((*data)->label(i), i % 10);
  }
  return false;
}

class MutationTest : public ::testing::TestWithParam<const char*> {};

TEST_P(MutationTest, IsAnErrorOrMakesNoDifference) {
  const ScratchDir dir;
  ASSERT_TRUE(Pack(SmallIdx(dir)).ok());
  const std::string path = dir / GetParam();
  const Bytes sound = ReadBytes(path);
  int64_t failed = 0;
  for (int64_t seed = 0; seed < Mutations() && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(static_cast<uint64_t>(seed));
    WriteBytes(path, Mutate(sound, &random));
    failed += FailsOrReadsTheSame(dir / "out");
  }
  EXPECT_GT(failed, 0);
  std::printf("%ld of %ld mutations of %s found\n", failed, Mutations(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Files, MutationTest, ::testing::Values(kShard, kManifest),
                         [](const auto& test) { return test.index == 0 ? "Shard" : "Manifest"; });

}  // namespace
}  // namespace deeper
