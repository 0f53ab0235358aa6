#include "data/sources/formats.h"

#include <algorithm>

#include "absl/strings/str_join.h"
#include "kernels/base/status.h"

namespace deeper {

OpenSource OpenIdx, OpenImagenet, OpenKaggle, OpenWebdataset, OpenCsv;  // each in the file of its name

namespace {

constexpr SourceFormat kFormats[] = {
    {"idx", OpenIdx, false,
     "IDX files such as MNIST's, plain or gzipped; splits val and test read the t10k files"},
    {"folder", OpenFolder, false,
     "one folder per class, with JPEG, PNG and WebP files; its name is the class name"},
    {"imagenet", OpenImagenet, true,
     "ImageNet 2012 as downloaded. train: ILSVRC2012_img_train.tar, or the 1000 tars in it;\n"
     "val: ILSVRC2012_img_val.tar or its files, with ILSVRC2012_devkit_t12.tar.gz or val.txt;\n"
     "both: folders named by WordNet ID (wnid). The label of a class is the position of its\n"
     "wnid in the sorted list, from 0 on. --strict requires 1,281,167 and 50,000 images of\n"
     "1000 classes"},
    {"kaggle", OpenKaggle, true,
     "ImageNet 2012 from Kaggle, unpacked: ILSVRC/, LOC_synset_mapping.txt and, for val,\n"
     "LOC_val_solution.csv. Labels and --strict as for imagenet"},
    {"webdataset", OpenWebdataset, false,
     "tar archives with members KEY.jpg (or another image) and KEY.cls or KEY.json. --input is a\n"
     "folder of archives, an archive, or a pattern in quotes: 'train-{000..009}.tar', 'train-*.tar'"},
    {"csv", OpenCsv, false,
     "a CSV file of lines PATH,LABEL, or with a header that has the columns path and label;\n"
     "--root is the folder of relative paths"},
};

}  // namespace

std::span<const SourceFormat> SourceFormats() {
  return kFormats;
}

std::vector<std::string> FormatNames() {
  std::vector<std::string> names;
  for (const SourceFormat& format : kFormats) names.push_back(format.name);
  return names;
}

absl::StatusOr<const SourceFormat*> FindFormat(const std::string& name) {
  const auto* const found = std::ranges::find(kFormats, name, &SourceFormat::name);
  if (found != std::end(kFormats)) return found;
  return InvalidArgument("--format=", name, ": must be one of ", absl::StrJoin(FormatNames(), ", "));
}

}  // namespace deeper
