// A tree of image files, one folder a class: root/<class>/**/<image>.
#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "data/pack/pack_source.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

struct FolderFile {
  std::string name;  // relative to the root
  int label;
};

class FolderSource : public PackSource {
 public:
  FolderSource(std::string root, std::vector<FolderFile> files, std::vector<std::string> classes,
               std::vector<std::string> warnings)
      : root_(std::move(root)), files_(std::move(files)) {
    classes_ = std::move(classes);
    warnings_ = std::move(warnings);
  }
  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  int channels() const override { return 3; }
  std::string Name(int64_t i) const override { return files_[static_cast<size_t>(i)].name; }
  int Label(int64_t i) const override { return files_[static_cast<size_t>(i)].label; }

  absl::StatusOr<SourceSample> Load(int64_t i) const override {
    ASSIGN_OR_RETURN(File file, File::Open(absl::StrCat(root_, "/", Name(i)), O_RDONLY));
    absl::StatusOr<uint64_t> size = file.Size();
    return size.ok() ? LoadImageFile(file, 0, *size) : size.status();
  }

 private:
  std::string root_;
  std::vector<FolderFile> files_;
};

bool Hidden(const fs::path& path) {
  return path.filename().string().starts_with(".");
}

// Folders directly under the root, by name, and the files there that belong to none.
absl::Status ListRoot(const std::string& root, std::vector<std::string>* folders,
                      std::vector<std::string>* strays) {
  std::error_code error;
  for (auto it = fs::directory_iterator(root, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    if (Hidden(it->path())) continue;
    const std::string name = it->path().filename();
    if (it->is_directory(error)) {
      folders->push_back(name);
    } else if (name != "classes.txt") {
      strays->push_back(name);
    }
  }
  std::sort(folders->begin(), folders->end());
  std::sort(strays->begin(), strays->end());
  return error ? IoError("list", root, error.value()) : absl::OkStatus();
}

// Everything but folders under root/folder, at any depth, in the order of the names. What is no image is
// found out later.
absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& root, const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  const fs::path base = fs::path(root) / folder;
  for (auto it = fs::recursive_directory_iterator(base, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    std::error_code broken_link;
    if (it->is_directory(broken_link) || Hidden(it->path())) continue;
    names.push_back(absl::StrCat(folder, "/", it->path().lexically_relative(base).string()));
  }
  if (error) return IoError("list", base, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

// Every folder must be a class.
absl::Status CheckFolders(const std::string& root, const std::vector<std::string>& folders,
                          const std::vector<std::string>& classes) {
  if (folders.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(root, " has no class folders; expected ", root, "/<class>/<image>"));
  }
  for (const std::string& folder : folders) {
    if (std::find(classes.begin(), classes.end(), folder) == classes.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("folder ", folder, " of ", root, " is none of the ", classes.size(),
                       " classes of the splits already packed or of classes.txt; remove it, or pack into "
                       "another directory"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackSource>> OpenFolderSource(const std::string& input,
                                                             const std::vector<std::string>& known_classes) {
  std::vector<std::string> folders, strays, warnings;
  RETURN_IF_ERROR(ListRoot(input, &folders, &strays));
  ASSIGN_OR_RETURN(std::vector<std::string> classes, ListedClasses(input, known_classes));
  if (classes.empty()) classes = folders;
  RETURN_IF_ERROR(CheckFolders(input, folders, classes));
  if (!strays.empty()) {
    warnings.push_back(absl::StrCat(
        strays.size(), " files outside the class folders are left out, the first is ", strays[0]));
  }
  std::vector<FolderFile> files;
  for (size_t label = 0; label < classes.size(); ++label) {
    const std::string& name = classes[label];
    std::vector<std::string> names;
    if (std::binary_search(folders.begin(), folders.end(), name)) {
      ASSIGN_OR_RETURN(names, ListFolder(input, name));
    }
    if (names.empty()) warnings.push_back(absl::StrCat("class ", name, " has no images"));
    for (std::string& file : names) files.push_back({std::move(file), static_cast<int>(label)});
  }
  return std::make_unique<FolderSource>(input, std::move(files), std::move(classes), std::move(warnings));
}

}  // namespace deeper
