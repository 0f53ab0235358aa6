#include "data/sources/labels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<NumberedLabels> Number(const std::vector<std::string>& texts,
                                      std::vector<std::string> listed = {}) {
  std::vector<TextLabel> labels;
  for (const std::string& text : texts) labels.push_back({text, "line " + std::to_string(labels.size())});
  return NumberLabels(labels, std::move(listed));
}

void ExpectLabels(const absl::StatusOr<NumberedLabels>& found, const std::vector<std::string>& classes,
                  const std::vector<int>& labels) {
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->classes, classes);
  EXPECT_EQ(found->labels, labels);
}

TEST(NumberLabels, NamesAreSortedUnlessListed) {
  ExpectLabels(Number({"dog", "cat", "dog"}), {"cat", "dog"}, {1, 0, 1});
  ExpectLabels(Number({"dog", "cat", "dog"}, {"dog", "fish", "cat"}), {"dog", "fish", "cat"}, {0, 2, 0});
  EXPECT_THAT(Number({"dog", "bird"}, {"dog", "cat"}).status().message(),
              AllOf(HasSubstr("line 1: \"bird\""), HasSubstr("not one of the 2 classes")));
  EXPECT_THAT(Number({"dog", "猫"}, {"dog", "cat"}).status().message(), HasSubstr("line 1: \"猫\""));
}

TEST(NumberLabels, NumbersCountFromZero) {
  ExpectLabels(Number({"2", "0", "007"}), {"0", "1", "2", "3", "4", "5", "6", "7"}, {2, 0, 7});
  ExpectLabels(Number({"1", "0"}, {"cat", "dog"}), {"cat", "dog"}, {1, 0});
  EXPECT_THAT(Number({"1", "2"}, {"cat", "dog"}).status().message(),
              AllOf(HasSubstr("line 1: label 2"), HasSubstr("2 classes, counted from 0")));
  for (const char* const large : {"65536", "99999999999999999999"})
    EXPECT_THAT(Number({large}).status().message(), HasSubstr("labels go up to 65535"));
}

// A list of names that are numbers: they are names.
TEST(NumberLabels, ListedNamesComeFirst) {
  ExpectLabels(Number({"20", "10"}, {"10", "20"}), {"10", "20"}, {1, 0});
  ExpectLabels(Number({"1", "0"}, {"1", "0"}), {"1", "0"}, {0, 1});
}

TEST(NumberLabels, NumbersBesideNamesAreAnError) {
  EXPECT_THAT(Number({"1", "0", "l0"}).status().message(),
              AllOf(HasSubstr("some labels are numbers"), HasSubstr("1 (line 0)"), HasSubstr("l0 (line 2)")));
  ExpectLabels(Number({"747", "boat"}, {"747", "boat"}), {"747", "boat"}, {0, 1});
  EXPECT_THAT(Number({"-1"}, {"a", "b"}).status().message(), HasSubstr("\"-1\" is not one of"));
}

TEST(NumberLabels, WhatIsNoName) {
  EXPECT_THAT(Number({"cat", ""}).status().message(), HasSubstr("line 1: \"\" is not the name of a class"));
  EXPECT_THAT(Number({"a\nb"}).status().message(), HasSubstr("\"a\\nb\" is not the name"));
}

}  // namespace
}  // namespace deeper
