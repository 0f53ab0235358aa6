#include "data/io/tar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using namespace std::string_literals;

constexpr size_t kBlock = 512, kChecksumAt = 148, kSizeAt = 124, kMagicAt = 257, kPrefixAt = 345;
const std::string kEnd(2 * kBlock, '\0');
const std::string kLongName = absl::StrCat(std::string(120, 'd'), "/", std::string(90, 'f'));

void PutChecksumRight(std::string* block) {
  block->replace(kChecksumAt, 8, 8, ' ');
  unsigned sum = 0;
  for (const char byte : *block) sum += static_cast<uint8_t>(byte);
  block->replace(kChecksumAt, 8, absl::StrFormat("%06o", sum) + "\0 "s);
}

struct Change {
  size_t at;
  std::string bytes;
};

// A ustar header. Applies `changes` before computing its checksum.
std::string Header(const std::string& name, uint64_t bytes, char type = '0',
                   const std::vector<Change>& changes = {}) {
  std::string block(kBlock, '\0');
  block.replace(0, name.size(), name);
  block.replace(kSizeAt, 11, absl::StrFormat("%011o", bytes));
  block[156] = type;
  block.replace(kMagicAt, 8, "ustar\00000"s);
  for (const Change& change : changes) block.replace(change.at, change.bytes.size(), change.bytes);
  PutChecksumRight(&block);
  return block;
}

std::string Padded(std::string content) {
  content.resize((content.size() + kBlock - 1) / kBlock * kBlock);
  return content;
}

std::string Member(const std::string& name, const std::string& content, char type = '0') {
  return Header(name, content.size(), type) + Padded(content);
}

std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::string rest = absl::StrCat(" ", key, "=", value, "\n");
  size_t length = rest.size() + 1;
  while (absl::StrCat(length).size() + rest.size() != length) ++length;
  return absl::StrCat(length, rest);
}

absl::StatusOr<std::vector<TarMember>> List(const std::string& bytes, uint64_t begin, uint64_t end) {
  const ReadAt read = [&](uint64_t offset, void* data, size_t count) {
    EXPECT_GE(offset, begin);
    EXPECT_LE(offset + count, end);
    std::memcpy(data, &bytes[offset], count);
    return absl::OkStatus();
  };
  return ListTar(read, begin, end);
}

absl::StatusOr<std::vector<TarMember>> List(const std::string& archive) {
  return List(archive, 0, archive.size());
}

// Names and contents of a valid archive.
std::vector<std::pair<std::string, std::string>> Files(const std::string& archive) {
  const absl::StatusOr<std::vector<TarMember>> members = List(archive);
  EXPECT_TRUE(members.ok()) << members.status();
  std::vector<std::pair<std::string, std::string>> files;
  for (const TarMember& m : members.ok() ? *members : std::vector<TarMember>())
    files.emplace_back(m.name, archive.substr(m.offset, m.bytes));
  return files;
}

void ExpectError(const std::string& archive, absl::StatusCode code, const std::string& what) {
  const absl::Status status = List(archive).status();
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(status.message(), HasSubstr(what));
}

void ExpectDamaged(const std::string& archive, const std::string& what) {
  ExpectError(archive, absl::StatusCode::kDataLoss, what);
}

TEST(Tar, ListsPlainFilesInOrder) {
  const std::string block(kBlock, 'b'), name(100, 'n');  // as long as fits, without a zero byte
  EXPECT_THAT(Files(Member("b", "content") + Member("folder/", "", '5') + Member("a", "") +
                    Member(name, block, '\0') + Member("contiguous", block + "c", '7') + kEnd),
              ElementsAre(std::pair("b", "content"), std::pair("a", ""), std::pair(name, block),
                          std::pair("contiguous", block + "c")));
  EXPECT_THAT(Files(kEnd), ElementsAre());
}

TEST(Tar, JoinsThePrefixOfUstarOnly) {
  const Change prefix = {kPrefixAt, "some/where"}, gnu = {kMagicAt, "ustar  "};
  EXPECT_THAT(Files(Header("x", 0, '0', {prefix}) + Header("y", 0, '0', {prefix, gnu}) + kEnd),
              ElementsAre(std::pair("some/where/x", ""), std::pair("y", "")));
}

TEST(Tar, LongNamesOfGnuAreOfTheNextMember) {
  EXPECT_THAT(Files(Member("././@LongLink", kLongName + '\0', 'L') + Member("cut", "1") + Member("x", "2") +
                    Member("././@LongLink", "of a link", 'K') + Member("y", "3") + kEnd),
              ElementsAre(std::pair(kLongName, "1"), std::pair("x", "2"), std::pair("y", "3")));
}

TEST(Tar, PaxRecordsAreOfTheNextMember) {
  const std::string records =
      PaxRecord("mtime", "1.5") + PaxRecord("path", kLongName) + PaxRecord("size", "3");
  EXPECT_THAT(Files(Member("all", PaxRecord("comment", "="), 'g') + Member("pax", records, 'x') +
                    Header("cut", 0) + Padded("123") + Member("x", "4") + kEnd),
              ElementsAre(std::pair(kLongName, "123"), std::pair("x", "4")));
}

TEST(Tar, DamagedPaxRecordsAreRefused) {
  for (const char* records : {"path=x\n", "9 path=x", "99 path=x\n", "0 path=x\n", "3 x\n", "-9 path=x\n",
                              "7 path\n", "9 size=x\n", "10 size=-1\n", "99999999999999999999 path=x\n"}) {
    SCOPED_TRACE(records);
    ExpectDamaged(Member("pax", records, 'x') + Member("x", "") + kEnd, "damaged pax records");
  }
}

TEST(Tar, ReadsSizesInEveryNotation) {
  const std::string content(300, 'c');
  for (const std::string& size : {"00000000454\0"s, "        454 "s, "454\0\0\0\0\0\0\0\0\0"s,
                                  "\x80\0\0\0\0\0\0\0\0\0\x01\x2c"s}) {  // the last of base 256
    EXPECT_THAT(Files(Header("x", 0, '0', {{kSizeAt, size}}) + Padded(content) + kEnd),
                ElementsAre(std::pair("x", content)));
  }
}

TEST(Tar, SizesThatLeadOutsideAreRefused) {
  for (const std::string& size : {"77777777777\0"s, "\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"s,
                                  "\x80\0\0\0\xff\xff\xff\xff\xff\xff\xfe\x01"s, "00000002001\0"s}) {
    ExpectDamaged(Header("x", 0, '0', {{kSizeAt, size}}) + kEnd, "truncated: x");
  }
  for (const std::string& size : {"\x80\0\0\x01\0\0\0\0\0\0\0\0"s, std::string(12, '\xff'), "0000000008\0\0"s,
                                  "-1\0\0\0\0\0\0\0\0\0\0"s, std::string(12, ' ')}) {
    ExpectDamaged(Header("x", 0, '0', {{kSizeAt, size}}) + kEnd, "damaged size");
  }
  ExpectDamaged(Member("pax", PaxRecord("size", "18446744073709551615"), 'x') + Header("x", 0) + kEnd,
                "truncated: x");
  ExpectDamaged(Header("././@LongLink", 1 << 30, 'L') + kEnd, "extension too long");
  ExpectDamaged(Header("././@LongLink", 4096, 'L') + kEnd, "truncated");
}

TEST(Tar, WhatHasNoContentInOnePieceIsRefused) {
  for (const char type : {'1', '2', '3', '4', '6', 'S', 'M', 'V', '\xff'}) {
    ExpectError(Member("x", "") + Member("odd", "", type) + kEnd, absl::StatusCode::kUnimplemented,
                absl::StrCat("odd is not a regular file (tar type ", int{static_cast<uint8_t>(type)}, ")"));
  }
  ExpectError(Member("pax", PaxRecord("GNU.sparse.major", "1"), 'x') + Member("x", "") + kEnd,
              absl::StatusCode::kUnimplemented, "sparse");
}

// As in the training archive: offsets count from the beginning of the outer archive.
TEST(Tar, ListsAnArchiveWithinAnother) {
  const std::string inner = Member("x", "content") + Member("y", "more") + kEnd;
  const std::string outer = Member("before", "1") + Member("inner.tar", inner) + Member("after", "2") + kEnd;
  const TarMember place = List(outer)->at(1);
  EXPECT_EQ(place.name, "inner.tar");
  const auto members = List(outer, place.offset, place.offset + place.bytes);
  ASSERT_TRUE(members.ok()) << members.status();
  ASSERT_EQ(members->size(), 2u);
  EXPECT_EQ(members->at(1).name, "y");
  EXPECT_EQ(outer.substr(members->at(1).offset, members->at(1).bytes), "more");
  // The inner archive ends where its member ends, regardless of what follows.
  EXPECT_EQ(List(outer, place.offset, place.offset + 3 * kBlock).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST(Tar, AnythingCutOffIsNoticed) {
  const std::string archive = Member("././@LongLink", kLongName + '\0', 'L') + Member("cut", "content") +
                              Member("pax", PaxRecord("path", "x"), 'x') + Member("y", "") + kEnd;
  const size_t first_zero_block_ends = archive.size() - kBlock;
  for (size_t size = 0; size < first_zero_block_ends; ++size) {
    SCOPED_TRACE(size);
    ExpectDamaged(archive.substr(0, size), "truncated");
  }
  EXPECT_TRUE(List(archive.substr(0, first_zero_block_ends)).ok());
}

TEST(Tar, AFlipInAHeaderIsNoticed) {
  const std::string archive = Member("a", "content") + Member("b", "") + kEnd;
  for (size_t at = 0; at < kBlock; ++at) {
    std::string flipped = archive;
    flipped[2 * kBlock + at] ^= 1;
    ExpectDamaged(flipped, absl::StrCat("missing or damaged tar header at byte ", 3 * kBlock));
  }
  ExpectDamaged(std::string(2 * kBlock, 'x'), "missing or damaged tar header");
}

TEST(Tar, ErrorsOfReadingArePassedOn) {
  const ReadAt read = [](uint64_t, void*, size_t) { return absl::PermissionDeniedError("no"); };
  EXPECT_EQ(ListTar(read, 0, 4 * kBlock).status(), absl::PermissionDeniedError("no"));
}

}  // namespace
}  // namespace deeper
