// What lies around in people's folders besides images.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "data/image/image_codec.h"
#include "data/pack/pack.h"
#include "tests/data/open_shards.h"
#include "tests/data/test_images.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Folder : public ::testing::Test {
 protected:
  Folder() {
    AddImage("bar/1.png");
    AddImage("beam/1.png");
    options_.format = "folder";
    options_.input = dir_ / "in";
    options_.output = dir_ / "out";
  }
  void AddImage(const std::string& name) { WriteBytes(dir_ / ("in/" + name), PngFile(MakeImage(4, 4, 3))); }
  void Link(const std::string& to, const std::string& name) const {
    fs::create_symlink(to, dir_ / ("in/" + name));
  }

  PackSummary Summary() const {
    const absl::StatusOr<PackSummary> summary = Pack(options_);
    EXPECT_TRUE(summary.ok()) << summary.status();
    return summary.value_or(PackSummary());
  }
  // The names of the samples that were packed, classes first.
  std::vector<std::string> Packed() const {
    const auto data = *OpenShards(options_.output, "train");
    std::vector<std::string> names = data->info().classes;
    for (int64_t i = 0; i < data->info().samples; ++i) {
      const std::string text = data->Describe(i);
      names.push_back(text.substr(text.find('(') + 1, text.rfind(')') - text.find('(') - 1));
    }
    return names;
  }
  std::string Error() const { return std::string(Pack(options_).status().message()); }

  ScratchDir dir_;
  PackOptions options_;
};

TEST_F(Folder, HiddenFilesAndFoldersAreNoSamplesAndCounted) {
  AddImage("bar/.ipynb_checkpoints/x.png");
  AddImage("beam/deep/.git/objects/y.png");
  AddImage("beam/._1.png");
  AddImage(".trash/z.png");
  options_.strict = true;  // they are normal
  EXPECT_THAT(Summary().notes, ElementsAre("4 hidden files and folders are left out, the first is .trash"));
  EXPECT_THAT(Packed(), ElementsAre("bar", "beam", "bar/1.png", "beam/1.png"));
}

TEST_F(Folder, LinksAreFollowedAndLoopsFound) {
  fs::create_directories(dir_ / "elsewhere/deep");
  WriteBytes(dir_ / "elsewhere/deep/2.png", PngFile(MakeImage(3, 3, 3)));
  Link("../../elsewhere", "beam/more");
  Link("../elsewhere/deep", "class");
  Link("../beam/1.png", "bar/2.png");
  Link("..", "bar/up");
  Link(".", "beam/self");
  Link("../in/bar", "beam/more/bar");  // and from there up to what it lies in
  EXPECT_THAT(Summary().warnings,
              ElementsAre("the link bar/up is not followed: it leads to a folder that contains it",
                          "the link beam/more/bar/up is not followed: it leads to a folder that contains it",
                          "the link beam/self is not followed: it leads to a folder that contains it"));
  EXPECT_THAT(Packed(), ElementsAre("bar", "beam", "class", "bar/1.png", "bar/2.png", "beam/1.png",
                                    "beam/more/bar/1.png", "beam/more/bar/2.png", "beam/more/deep/2.png",
                                    "class/2.png"));
}

TEST_F(Folder, LinksToNothingAreBadImages) {
  Link("nowhere.png", "bar/2.png");
  Link("self.png", "bar/self.png");
  EXPECT_THAT(Error(), AllOf(HasSubstr("2 bad images"), HasSubstr("bar/2.png"), HasSubstr("bar/self.png")));
}

TEST_F(Folder, TheOutputIsNoClass) {
  for (const char* const place : {"in/packed", "in/new/deep/packed", "in/bar/packed"}) {
    options_.output = dir_ / place;
    const std::vector<std::string> want = {"bar", "beam", "bar/1.png", "beam/1.png"};
    for (const std::string split : {"train", "val", "train"}) {  // and it is there from the second on
      options_.split = split;
      EXPECT_THAT(Summary().notes, ElementsAre("the output directory " + options_.output +
                                               " is inside the input and is left out"));
      EXPECT_EQ(Packed(), want) << place;
    }
    fs::remove_all(options_.output);
  }
}

TEST_F(Folder, EmptyFoldersAreNoClasses) {
  fs::create_directories(dir_ / "in/empty/in/depth");
  EXPECT_THAT(Summary().warnings, ElementsAre("folder empty has no images and is not a class"));
  EXPECT_THAT(Packed(), ElementsAre("bar", "beam", "bar/1.png", "beam/1.png"));
  // Unless a list of the classes says that it is one.
  const std::string list = "empty\nbeam\nbar\n";
  WriteBytes(dir_ / "in/classes.txt", Bytes(list.begin(), list.end()));
  options_.output = dir_ / "listed";
  EXPECT_THAT(Summary().warnings, ElementsAre("class empty has no images"));
  EXPECT_THAT(Packed(), ElementsAre("empty", "beam", "bar", "beam/1.png", "bar/1.png"));
}

// Reading the pipe would wait for ever.
TEST_F(Folder, WhatIsNoRegularFileIsNamedAndLeftOut) {
  ASSERT_EQ(mkfifo((dir_ / "in/bar/pipe.png").c_str(), 0666), 0);
  ASSERT_EQ(mkfifo((dir_ / "in/pipe").c_str(), 0666), 0);
  Link("/dev/zero", "beam/zero.png");
  EXPECT_THAT(Summary().warnings, ElementsAre("pipe is left out: it is not a regular file",
                                              "bar/pipe.png is left out: it is not a regular file",
                                              "beam/zero.png is left out: it is not a regular file"));
  options_.strict = true;
  EXPECT_THAT(Error(), HasSubstr("bar/pipe.png"));
}

// The list of the classes as editors write it.
TEST_F(Folder, ClassesFileWithInvisibleCharacters) {
  const auto write = [&](const std::string& text) {
    WriteBytes(dir_ / "in/classes.txt", Bytes(text.begin(), text.end()));
  };
  write(
      "\xEF\xBB\xBF"
      "beam\r\nbar\r\n");
  Summary();
  EXPECT_THAT(Packed(), ElementsAre("beam", "bar", "beam/1.png", "bar/1.png"));
  write("beam \nbar\t\n");
  EXPECT_EQ(Error(), "");
  write("beam\n bar\n");
  EXPECT_THAT(Error(), HasSubstr("classes.txt: \" bar\" begins or ends with a blank; remove the blank"));
  write(
      std::string("\xFF\xFE"
                  "b\0e\0a\0m\0\n\0b\0a\0r\0",
                  18));
  EXPECT_THAT(Error(), HasSubstr("classes.txt is not UTF-8 text"));
}

TEST_F(Folder, ImagesWithIrregularHeadersAreNoted) {
  Bytes file = EncodeJpeg(MakeImage(4, 4, 3), 90);
  file[11] = file[12] = 0;  // the version of JFIF, as in Kaggle's Cats and Dogs
  WriteBytes(dir_ / "in/bar/2.jpg", file);
  options_.strict = true;
  EXPECT_THAT(Summary().notes,
              ElementsAre(AllOf(HasSubstr("1 images are irregular but have all their pixels"),
                                HasSubstr("bar/2.jpg: Warning: unknown JFIF revision number 0.00"))));
  EXPECT_THAT(Packed(), ElementsAre("bar", "beam", "bar/1.png", "bar/2.jpg", "beam/1.png"));
}

}  // namespace
}  // namespace deeper
