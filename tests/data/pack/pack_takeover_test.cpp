#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "data/pack/pack.h"
#include "tests/data/small_dataset.h"

namespace deeper {
namespace {

// Another machine takes the directory over while this one makes no progress.
TEST(Pack, ADirectoryThatWasTakenOverIsLeftAlone) {
  const ScratchDir dir;
  const PackOptions options = SmallIdx(dir);
  const auto result = Pack(options, [&](const std::string& phase, int64_t, int64_t) {
    if (phase == "write") std::ofstream(dir / "out/.deeper-lock") << "host other\nprocess 7\ntoken 0\n";
  });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kAborted) << result.status();
  EXPECT_FALSE(std::filesystem::exists(dir / "out/manifest.json"));
  EXPECT_FALSE(std::filesystem::exists(dir / "out/train-00000-of-00003.h5"));
}

}  // namespace
}  // namespace deeper
