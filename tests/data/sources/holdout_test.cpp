#include "data/sources/holdout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

// 1000 samples: 70 % of class 0, 20 % of class 1, 9 % of class 2, 1 % of class 3, mixed.
class Numbers final : public ImageSource {
 public:
  Numbers() : ImageSource({"a", "b", "c", "d"}) {
    Warn("a warning");
    Note("a note");
  }
  int64_t size() const override { return 1000; }
  int channels() const override { return 1; }
  std::string Name(int64_t i) const override { return absl::StrCat(i); }
  int Label(int64_t i) const override {
    const int64_t place = i * 77 % 100;
    return place < 70 ? 0 : place < 90 ? 1 : place < 99 ? 2 : 3;
  }
  absl::StatusOr<SourceSample> Load(int64_t i) const override {
    SourceSample sample;
    sample.file = {static_cast<uint8_t>(i % 251)};
    return sample;
  }
};

std::unique_ptr<ImageSource> Part(SourcePart part, int64_t holdout, uint64_t seed = 1) {
  absl::StatusOr<std::unique_ptr<ImageSource>> source =
      TakePart(std::make_unique<Numbers>(), part, holdout, seed);
  EXPECT_TRUE(source.ok()) << source.status();
  return *std::move(source);
}

std::vector<std::string> NamesOf(const ImageSource& source) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < source.size(); ++i) names.push_back(source.Name(i));
  return names;
}

TEST(TakePart, DividesTheSamplesWithTheSameShareOfEveryClass) {
  const auto rest = Part(SourcePart::kRest, 130), held_out = Part(SourcePart::kHoldout, 130);
  EXPECT_EQ(rest->size(), 870);
  EXPECT_EQ(held_out->size(), 130);
  std::map<int, int> counts;
  for (int64_t i = 0; i < held_out->size(); ++i) ++counts[held_out->Label(i)];
  // 91, 26, 11.7 and 1.3
  EXPECT_THAT(counts, (std::map<int, int>{{0, 91}, {1, 26}, {2, 12}, {3, 1}}));

  std::vector<std::string> all = NamesOf(*rest);
  EXPECT_TRUE(std::ranges::is_sorted(all, {}, [](const std::string& name) { return std::stoi(name); }));
  for (const std::string& name : NamesOf(*held_out)) all.push_back(name);
  std::ranges::sort(all);
  EXPECT_EQ(all.size(), 1000);
  EXPECT_EQ(std::ranges::adjacent_find(all), all.end()) << "a sample is in both parts";
}

TEST(TakePart, SamplesKeepWhatTheyAre) {
  const Numbers whole;
  const auto part = Part(SourcePart::kHoldout, 10);
  EXPECT_THAT(part->classes(), testing::ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(part->warnings(), testing::ElementsAre("a warning"));
  EXPECT_THAT(part->notes(), testing::ElementsAre("a note"));
  for (int64_t i = 0; i < part->size(); ++i) {
    const int64_t sample = std::stoi(part->Name(i));
    EXPECT_EQ(part->Label(i), whole.Label(sample));
    EXPECT_EQ(part->Load(i)->file, whole.Load(sample)->file);
  }
}

TEST(TakePart, WarnsOfClassesThatLoseAllImages) {
  // 10 samples of class 3, and 9.99 of them are held out.
  EXPECT_THAT(Part(SourcePart::kRest, 999)->warnings(),
              testing::Contains(testing::HasSubstr("because all of theirs are held out: ")));
  EXPECT_THAT(Part(SourcePart::kHoldout, 999)->warnings(), testing::ElementsAre("a warning"));
  EXPECT_THAT(Part(SourcePart::kRest, 900)->warnings(), testing::ElementsAre("a warning"));
}

TEST(TakePart, DependsOnTheSeedAlone) {
  const auto names = [](uint64_t seed) { return NamesOf(*Part(SourcePart::kHoldout, 100, seed)); };
  EXPECT_EQ(names(1), names(1));
  EXPECT_NE(names(1), names(2));
}

TEST(TakePart, LeavesSomethingToTrainOn) {
  EXPECT_EQ(Part(SourcePart::kRest, 999)->size(), 1);
  const absl::Status status = TakePart(std::make_unique<Numbers>(), SourcePart::kRest, 1000, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), testing::HasSubstr("1000 images"));
}

}  // namespace
}  // namespace deeper
