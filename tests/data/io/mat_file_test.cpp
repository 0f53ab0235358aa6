#include "data/io/mat_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace deeper {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

// Numbers of element types and array classes in the format.
enum Type : uint32_t {
  kInt8 = 1,
  kUint8 = 2,
  kInt16 = 3,
  kUint16 = 4,
  kInt32 = 5,
  kUint32 = 6,
  kSingle = 7,
  kDouble = 9,
  kInt64 = 12,
  kUint64 = 13,
  kMatrix = 14,
  kCompressed = 15,
  kUtf8 = 16,
  kUtf16 = 17,
};
enum Class : uint32_t { kCell = 1, kStruct = 2, kChar = 4, kSparse = 5, kDoubles = 6 };

template <class T>
Bytes BytesOf(const std::vector<T>& values) {
  Bytes bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

Bytes Text(const std::string& text) {
  return {text.begin(), text.end()};
}

Bytes Join(const std::vector<Bytes>& parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

Bytes Element(uint32_t type, const Bytes& data) {
  Bytes element = Join({BytesOf<uint32_t>({type, static_cast<uint32_t>(data.size())}), data});
  if (type != kCompressed) element.resize((element.size() + 7) / 8 * 8);
  return element;
}

// An element of at most 4 bytes, stored in its tag.
Bytes SmallElement(uint32_t type, const Bytes& data) {
  Bytes element = Join({BytesOf<uint32_t>({type | static_cast<uint32_t>(data.size()) << 16}), data});
  element.resize(8);
  return element;
}

// `content`: the elements after the name.
Bytes Array(Class mx_class, const std::vector<int32_t>& dims, const std::string& name,
            const std::vector<Bytes>& content) {
  return Element(kMatrix, Join({Element(kUint32, BytesOf<uint32_t>({mx_class, 0})),
                                Element(kInt32, BytesOf(dims)), Element(kInt8, Text(name)), Join(content)}));
}

Bytes Numbers(const std::string& name, const std::vector<double>& values) {
  return Array(kDoubles, {static_cast<int32_t>(values.size()), 1}, name, {Element(kDouble, BytesOf(values))});
}

// Two structures of two fields, whose names have 8 bytes each; `values` in the file's order.
Bytes Structs(const std::string& name, const std::vector<Bytes>& values) {
  const std::string names("id\0\0\0\0\0\0words\0\0\0", 16);
  return Array(kStruct, {2, 1}, name,
               {SmallElement(kInt32, BytesOf<int32_t>({8})), Element(kInt8, Text(names)), Join(values)});
}

Bytes Compressed(const Bytes& element) {
  uLongf size = compressBound(element.size());
  Bytes packed(size);
  EXPECT_EQ(compress(packed.data(), &size, element.data(), element.size()), Z_OK);
  packed.resize(size);
  return Element(kCompressed, packed);
}

Bytes File(const std::vector<Bytes>& elements) {
  Bytes header(124, ' ');
  return Join({header, {0, 1, 'I', 'M'}, Join(elements)});
}

MatArray Read(const Bytes& file, const std::string& name = "x") {
  absl::StatusOr<MatArray> array = ReadMatVariable(file, name);
  EXPECT_TRUE(array.ok()) << array.status();
  return array.ok() ? *array : MatArray();
}

absl::StatusCode CodeOf(const Bytes& file, const std::string& name = "x") {
  return ReadMatVariable(file, name).status().code();
}

// The same numbers, stored as T.
template <class T>
std::vector<double> StoredAs(uint32_t type, const std::vector<T>& values) {
  const auto count = static_cast<int32_t>(values.size());
  return Read(File({Array(kDoubles, {1, count}, "x", {Element(type, BytesOf(values))})})).numbers;
}

TEST(MatFile, ReadsNumbersStoredInAnyType) {
  const auto all = [](auto... values) { return ElementsAre(values...); };
  EXPECT_THAT(StoredAs<int8_t>(kInt8, {1, -2, 127}), all(1, -2, 127));
  EXPECT_THAT(StoredAs<uint8_t>(kUint8, {1, 2, 255}), all(1, 2, 255));
  EXPECT_THAT(StoredAs<int16_t>(kInt16, {1, -2, 32767}), all(1, -2, 32767));
  EXPECT_THAT(StoredAs<uint16_t>(kUint16, {1, 65535}), all(1, 65535));
  EXPECT_THAT(StoredAs<int32_t>(kInt32, {1, -2}), all(1, -2));
  EXPECT_THAT(StoredAs<uint32_t>(kUint32, {1, 1u << 31}), all(1, 2147483648.0));
  EXPECT_THAT(StoredAs<float>(kSingle, {1, -0.5f}), all(1, -0.5));
  EXPECT_THAT(StoredAs<double>(kDouble, {1, 1e300}), all(1, 1e300));
  EXPECT_THAT(StoredAs<int64_t>(kInt64, {-1, int64_t{1} << 40}), all(-1, std::ldexp(1, 40)));
  EXPECT_THAT(StoredAs<uint64_t>(kUint64, {uint64_t{1} << 63}), all(std::ldexp(1, 63)));
  EXPECT_THAT(Read(File({Array(kDoubles, {1, 1}, "x", {SmallElement(kUint8, {7})})})).numbers, all(7));
}

TEST(MatFile, ReadsText) {
  const Bytes wide = BytesOf<uint16_t>({'c', 0xe9, '!'});
  EXPECT_EQ(Read(File({Array(kChar, {1, 3}, "x", {Element(kUtf16, wide)})})).text, "c?!");
  EXPECT_EQ(Read(File({Array(kChar, {1, 9}, "x", {Element(kUtf8, Text("n01440764"))})})).text, "n01440764");
  EXPECT_EQ(Read(File({Array(kChar, {1, 2}, "x", {SmallElement(kUint8, Text("ab"))})})).text, "ab");
}

TEST(MatFile, ReadsStructures) {
  const std::vector<Bytes> values = {Numbers("", {1}),
                                     Array(kChar, {1, 1}, "", {SmallElement(kUtf8, Text("a"))}),
                                     Numbers("", {2}), Element(kMatrix, {})};  // the last is empty
  const MatArray plain = Read(File({Structs("x", values)}));
  EXPECT_THAT(plain.fields, ElementsAre("id", "words"));
  ASSERT_EQ(plain.elements.size(), 4u);
  EXPECT_THAT(plain.elements[0].numbers, ElementsAre(1));
  EXPECT_EQ(plain.elements[1].text, "a");
  EXPECT_THAT(plain.elements[2].numbers, ElementsAre(2));
  EXPECT_EQ(plain.elements[3].text, "");

  const Bytes number = Numbers("", {3});
  const MatArray nested = Read(File({Structs("x", {number, number, Structs("", values), number})}));
  EXPECT_EQ(nested.elements.at(2).elements.at(1).text, "a");
}

TEST(MatFile, FindsTheVariableAskedFor) {
  const Bytes file =
      File({Numbers("a", {1}), Element(kUint8, {1, 2, 3}), Compressed(Numbers("b", {2})), Numbers("c", {3})});
  EXPECT_THAT(Read(file, "a").numbers, ElementsAre(1));
  EXPECT_THAT(Read(file, "b").numbers, ElementsAre(2));
  EXPECT_THAT(Read(file, "c").numbers, ElementsAre(3));
  EXPECT_EQ(CodeOf(file, "d"), absl::StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(File({}), "a"), absl::StatusCode::kNotFound);
}

TEST(MatFile, AnythingCutOffIsNoticed) {
  const Bytes number = Numbers("", {1});
  for (const Bytes& element : {Numbers("x", {1, 2}), Structs("x", {number, number, number, number}),
                               Compressed(Numbers("x", {1, 2}))}) {
    const Bytes file = File({element});
    ASSERT_TRUE(ReadMatVariable(file, "x").ok());
    for (size_t size = 0; size < file.size(); ++size) {
      const Bytes cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_EQ(CodeOf(cut), size == 128 ? absl::StatusCode::kNotFound : absl::StatusCode::kDataLoss) << size;
    }
  }
}

TEST(MatFile, DamageIsRefused) {
  const Bytes data = Element(kDouble, BytesOf<double>({1, 2}));
  const auto expect_damaged = [](const char* what, const Bytes& element) {
    EXPECT_EQ(CodeOf(File({element})), absl::StatusCode::kDataLoss) << what;
  };
  expect_damaged("fewer numbers than the dimensions say", Array(kDoubles, {3, 1}, "x", {data}));
  expect_damaged("more", Array(kDoubles, {1, 1}, "x", {data}));
  expect_damaged("dimensions that overflow", Array(kDoubles, {-1, -1, -1}, "x", {data}));
  expect_damaged("numbers of no type", Array(kDoubles, {2, 1}, "x", {Element(8, Bytes(16))}));
  expect_damaged("no numbers", Array(kDoubles, {0, 0}, "x", {}));
  expect_damaged("a small element of 5 bytes", BytesOf<uint32_t>({kUint8 | 5 << 16, 0}));
  const std::vector<Bytes> names = {SmallElement(kInt32, BytesOf<int32_t>({4})),
                                    Element(kInt8, Text({"id\0\0", 4}))};
  ASSERT_TRUE(
      ReadMatVariable(File({Array(kStruct, {1, 1}, "x", {names[0], names[1], Numbers("", {1})})}), "x").ok());
  expect_damaged("field names of no length",
                 Array(kStruct, {1, 1}, "x", {SmallElement(kInt32, BytesOf<int32_t>({0})), names[1]}));
  expect_damaged("a field without a value", Array(kStruct, {1, 1}, "x", names));
  expect_damaged("a million structures",
                 Array(kStruct, {1000, 1000}, "x", {names[0], names[1], Numbers("", {1})}));
  expect_damaged("a value that is no array", Array(kStruct, {1, 1}, "x", {names[0], names[1], data}));
  expect_damaged("not zlib's", Element(kCompressed, Bytes(20, 7)));

  Bytes deep = Numbers("", {1});
  for (int i = 0; i < 20; ++i) deep = Array(kStruct, {1, 1}, "x", {names[0], names[1], deep});
  expect_damaged("twenty structures within each other", deep);
}

TEST(MatFile, WhatItCannotReadItNames) {
  for (const Class mx_class : {kCell, kSparse}) {
    const absl::Status status = ReadMatVariable(File({Array(mx_class, {1, 1}, "x", {})}), "x").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(status.message(), HasSubstr("array of class " + std::to_string(mx_class)));
  }
  Bytes big_endian = File({Numbers("x", {1})});
  std::swap(big_endian[126], big_endian[127]);
  EXPECT_THAT(ReadMatVariable(big_endian, "x").status().message(), HasSubstr("not a little-endian MAT-file"));
}

}  // namespace
}  // namespace deeper
