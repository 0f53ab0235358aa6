// A tree of image files with one folder per class: root/<class>/**/<image>.
#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "data/sources/source.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

// Lists all files under root/folder, at any depth, in the order of their names. Files that are not images are
// rejected later.
absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& root, const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path base = fs::path(root) / folder;
  for (auto it = fs::recursive_directory_iterator(base, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    std::error_code broken_link;
    if (it->is_directory(broken_link) || IsHidden(it->path())) continue;
    names.push_back(absl::StrCat(folder, "/", it->path().lexically_relative(base).string()));
  }
  if (error) return IoError("list", base, error.value());
  std::ranges::sort(names);
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenFolder(const SourceOptions& options) {
  const std::string& input = options.input;
  std::vector<std::string> folders, strays;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(input));
  for (const std::string& name : names) {
    std::error_code broken_link;
    if (fs::is_directory(fs::path(input) / name, broken_link)) {
      folders.push_back(name);
    } else if (name != "classes.txt") {
      strays.push_back(name);
    }
  }
  ASSIGN_OR_RETURN(std::vector<std::string> classes, ListedClasses(options));
  if (classes.empty()) classes = folders;
  if (folders.empty()) {
    return InvalidArgument(input, " has no class folders; expected ", input, "/<class>/<image>");
  }
  RETURN_IF_ERROR(
      CheckAreClasses(input, "folder", folders, classes, "the splits already packed or of classes.txt"));
  std::vector<std::string> empty;
  std::vector<ImageFile> images;
  for (size_t label = 0; label < classes.size(); ++label) {
    std::vector<std::string> files;
    if (std::ranges::binary_search(folders, classes[label])) {
      ASSIGN_OR_RETURN(files, ListFolder(input, classes[label]));
    }
    if (files.empty()) empty.push_back(classes[label]);
    for (std::string& file : files) images.push_back({std::move(file), static_cast<int>(label)});
  }
  auto source = MakeFileSource(input, {}, std::move(images), std::move(classes));
  if (!strays.empty()) {
    source->Warn(absl::StrCat(strays.size(), " files outside the class folders are left out; the first is ",
                              strays[0]));
  }
  for (const std::string& name : empty) source->Warn(absl::StrCat("class ", name, " has no images"));
  return source;
}

}  // namespace deeper
