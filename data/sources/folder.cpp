// A tree of image files with one folder per class: root/<class>/**/<image>.
#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/sources/listing.h"
#include "data/sources/source.h"
#include "kernels/base/status.h"

namespace deeper {
absl::StatusOr<std::unique_ptr<ImageSource>> OpenFolder(const SourceOptions& options) {
  const std::string& input = options.input;
  Lister lister(options);
  ASSIGN_OR_RETURN(Listing top, lister.List());
  std::erase(top.files, "classes.txt");
  ASSIGN_OR_RETURN(std::vector<std::string> classes, ListedClasses(options));
  // What is no image is found out later.
  std::map<std::string, std::vector<std::string>> files;
  std::vector<std::string> folders, warnings;
  for (const std::string& folder : top.folders) {
    ASSIGN_OR_RETURN(std::vector<std::string> names, lister.ListTree(folder));
    if (!names.empty()) {
      folders.push_back(folder);
      files[folder] = std::move(names);
    } else if (std::ranges::find(classes, folder) == classes.end()) {
      warnings.push_back(absl::StrCat("folder ", folder, " has no images and is not a class"));
    }
  }
  if (classes.empty()) classes = folders;
  if (classes.empty()) {
    return InvalidArgument(input, " has no class folders with images; expected ", input, "/<class>/<image>");
  }
  RETURN_IF_ERROR(
      CheckAreClasses(input, "folder", folders, classes, "the splits already packed or of classes.txt"));
  std::vector<ImageFile> images;
  for (size_t label = 0; label < classes.size(); ++label) {
    std::vector<std::string>& names = files[classes[label]];
    if (names.empty()) warnings.push_back(absl::StrCat("class ", classes[label], " has no images"));
    for (std::string& name : names) images.push_back({std::move(name), static_cast<int>(label)});
  }
  auto source = MakeFileSource(input, {}, std::move(images), std::move(classes));
  lister.Report(source.get());
  if (!top.files.empty()) {
    source->Warn(absl::StrCat(top.files.size(),
                              " files outside the class folders are left out; the first is ", top.files[0]));
  }
  const bool are_splits = std::ranges::all_of(source->classes(), [](const std::string& name) {
    return name == "train" || name == "val" || name == "valid" || name == "validation" || name == "test";
  });
  if (are_splits) {
    source->Warn(absl::StrCat("the classes are called ", absl::StrJoin(source->classes(), " and "),
                              ", like parts of a data set; pack each part with --split, from ", input, "/",
                              source->classes()[0]));
  }
  for (std::string& warning : warnings) source->Warn(std::move(warning));
  return source;
}

}  // namespace deeper
