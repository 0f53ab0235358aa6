#include "data/load/matched_classes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Names = std::vector<std::string>;

// Samples of the given labels; sample i is a pixel of value i.
class Labelled final : public Dataset {
 public:
  Labelled(Names classes, std::vector<int32_t> labels) : labels_(std::move(labels)) {
    info_.classes = std::move(classes);
    info_.samples = std::ssize(labels_);
    info_.channels = 1;
  }

  const DatasetInfo& info() const override { return info_; }
  int32_t label(int64_t index) const override { return labels_[static_cast<size_t>(index)]; }
  std::string Describe(int64_t index) const override { return "sample " + std::to_string(index); }
  absl::Status Read(int64_t index, Image* image) const override {
    *image = {1, 1, 1, {static_cast<uint8_t>(index)}};
    return absl::OkStatus();
  }

 private:
  DatasetInfo info_;
  std::vector<int32_t> labels_;
};

absl::StatusOr<MatchedData> Match(const Names& data, const std::vector<int32_t>& labels, const Names& network,
                                  int64_t outputs = 3) {
  return MatchClasses(std::make_unique<Labelled>(data, labels), network, outputs);
}

std::vector<std::string> NamesOfSamples(const Dataset& data) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < data.info().samples; ++i)
    names.push_back(data.info().classes.at(static_cast<size_t>(data.label(i))));
  return names;
}

TEST(MatchClassesTest, TheSameClassesAreLeftAlone) {
  const auto same = Match({"a", "b", "c"}, {2, 0, 1}, {"a", "b", "c"});
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_THAT(same->notes, IsEmpty());
  EXPECT_EQ(same->data->label(0), 2);
}

TEST(MatchClassesTest, AnotherOrderIsMatchedByName) {
  const auto matched = Match({"c", "a", "b"}, {0, 1, 2, 0}, {"a", "b", "c"});
  ASSERT_TRUE(matched.ok()) << matched.status();
  EXPECT_THAT(matched->notes, ElementsAre(HasSubstr("matched by name")));
  EXPECT_THAT(NamesOfSamples(*matched->data), ElementsAre("c", "a", "b", "c"));
  EXPECT_EQ(matched->data->label(0), 2);
  Image image;
  ASSERT_TRUE(matched->data->Read(3, &image).ok());
  EXPECT_THAT(image.pixels, ElementsAre(3));
}

TEST(MatchClassesTest, MissingAndUnusedClassesAreStated) {
  const auto fewer = Match({"a", "c"}, {0, 1}, {"a", "b", "c"});
  ASSERT_TRUE(fewer.ok()) << fewer.status();
  EXPECT_THAT(fewer->notes, ElementsAre(HasSubstr("matched by name"), HasSubstr("lacks 1 class (b)")));
  EXPECT_THAT(NamesOfSamples(*fewer->data), ElementsAre("a", "c"));

  const auto more = Match({"a", "b", "c", "d"}, {0, 2}, {"a", "b", "c"});
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_THAT(more->notes,
              ElementsAre(AllOf(HasSubstr("does not know 1 class (d)"), HasSubstr("no samples"))));
}

TEST(MatchClassesTest, WhatCannotBeMatchedIsRefused) {
  const absl::Status unknown = Match({"a", "x"}, {0, 1}, {"a", "b"}, 2).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(unknown.message()), AllOf(HasSubstr("1 class (x)"), HasSubstr("1 class (b)")));
  EXPECT_THAT(Match({"b", "a"}, {0, 1}, {"a", "b", "a"}).status().ToString(),
              HasSubstr("more than one class"));
}

TEST(MatchClassesTest, WithoutNamesLabelsAreKept) {
  const auto kept = Match({"a", "b"}, {1, 0}, {}, 2);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_THAT(kept->notes, ElementsAre(HasSubstr("do not name their classes")));
  EXPECT_EQ(kept->data->label(0), 1);
  EXPECT_THAT(Match({"a", "b"}, {1, 0}, {}, 1).status().ToString(),
              HasSubstr("2 classes, the network only 1"));
}

}  // namespace
}  // namespace deeper
