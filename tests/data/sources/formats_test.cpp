#include "data/sources/formats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace deeper {
namespace {

TEST(SourceFormats, EachIsFoundByItsName) {
  std::set<std::string> names;
  for (const SourceFormat& format : SourceFormats()) {
    const absl::StatusOr<const SourceFormat*> found = FindFormat(format.name);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ((*found)->open, format.open);
    EXPECT_TRUE(names.insert(format.name).second) << format.name << " is there twice";
  }
}

TEST(SourceFormats, AnUnknownOneIsAnErrorThatListsThem) {
  for (const char* name : {"", "tiff", "idx "}) {
    EXPECT_THAT(FindFormat(name).status().message(), ::testing::HasSubstr("must be one of idx, folder"));
  }
}

}  // namespace
}  // namespace deeper
