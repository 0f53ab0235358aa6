#include "trainer/monitor/text_layout.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace deeper {
namespace {

TEST(TextLayout, WrapsAtWordsAndKeepsTheLabelColumn) {
  EXPECT_EQ(Wrapped("flags", "--a=1 --bb=22 --c=3", 0, 8, 20),
            "flags   --a=1\n        --bb=22\n        --c=3\n");
  EXPECT_EQ(Wrapped("", "one two three", 0, 0, 7), "one two\nthree\n");
  EXPECT_EQ(Wrapped("--long_label", "text", 2, 8, 20), "  --long_label\n        text\n");
  EXPECT_EQ(Wrapped("x", "a_word_that_is_longer b", 0, 2, 10), "x a_word_that_is_longer\n  b\n");
  EXPECT_EQ(Wrapped("empty", "", 0, 8, 20), "empty\n");
}

TEST(TextLayout, AlignsColumns) {
  EXPECT_EQ(FormatTable("rl", {{"n", "name"}, {"10", "x"}}), " n  name\n10  x\n");
}

TEST(TextLayout, ColumnsAreThoseOfTheVariableWithinLimits) {
  setenv("COLUMNS", "120", 1);
  EXPECT_EQ(TextColumns(stdout, 160), 120);
  EXPECT_EQ(TextColumns(stdout, 100), 100);
  setenv("COLUMNS", "20", 1);
  EXPECT_EQ(TextColumns(stdout, 160), kFewestColumns);
  unsetenv("COLUMNS");
  std::FILE* file = std::tmpfile();
  EXPECT_EQ(TextColumns(file, 160), kPipeColumns);
  std::fclose(file);
}

}  // namespace
}  // namespace deeper
