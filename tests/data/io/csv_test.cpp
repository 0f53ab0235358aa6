#include "data/io/csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::vector<std::string>> Cells(absl::string_view text) {
  const absl::StatusOr<std::vector<CsvRow>> rows = ParseCsv(text);
  EXPECT_TRUE(rows.ok()) << rows.status();
  std::vector<std::vector<std::string>> cells;
  for (const CsvRow& row : rows.value_or(std::vector<CsvRow>())) cells.push_back(row.cells);
  return cells;
}

TEST(Csv, LinesAndCells) {
  EXPECT_THAT(Cells("a.jpg,cat\nb.jpg,dog"),
              ElementsAre(ElementsAre("a.jpg", "cat"), ElementsAre("b.jpg", "dog")));
  EXPECT_THAT(Cells("\r\na,1\r\n\n \t\nb,2\rc,3\r\n"),
              ElementsAre(ElementsAre("a", "1"), ElementsAre("b", "2"), ElementsAre("c", "3")));
  EXPECT_THAT(Cells(" a , b\t\n,\nc,,d"),
              ElementsAre(ElementsAre("a", "b"), ElementsAre("", ""), ElementsAre("c", "", "d")));
  EXPECT_THAT(Cells(""), ElementsAre());
}

TEST(Csv, Quotes) {
  EXPECT_THAT(Cells("\"a,b.jpg\" , \"the \"\"cat\"\"\"\n"),
              ElementsAre(ElementsAre("a,b.jpg", "the \"cat\"")));
  EXPECT_THAT(Cells("\" a \",\"\"\n5\" nail,b"),
              ElementsAre(ElementsAre(" a ", ""), ElementsAre("5\" nail", "b")));
}

TEST(Csv, LineNumbersCountLineEndsInQuotes) {
  const auto rows = ParseCsv("\n\"a\nb\",c\nd,e\r\nf,g\n");
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 3u);
  EXPECT_EQ((*rows)[0].cells[0], "a\nb");
  EXPECT_EQ((*rows)[0].line, 2);
  EXPECT_EQ((*rows)[1].line, 4);
  EXPECT_EQ((*rows)[2].line, 5);
}

TEST(Csv, WhatIsNoCsvIsAnError) {
  EXPECT_THAT(ParseCsv("a,b\n\"c,d\n").status().message(), HasSubstr("line 2: a quote is not closed"));
  EXPECT_THAT(ParseCsv("\"a\"b,c").status().message(), HasSubstr("line 1: text behind a closing quote: b"));
  EXPECT_THAT(ParseCsv(absl::string_view("a\0,\0b\0", 6)).status().message(), HasSubstr("not UTF-8 text"));
}

}  // namespace
}  // namespace deeper
