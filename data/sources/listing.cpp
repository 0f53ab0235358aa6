#include "data/sources/listing.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "kernels/base/status.h"

namespace deeper {

namespace fs = std::filesystem;

Lister::Lister(const SourceOptions& options)
    : input_(options.input), output_(options.output), output_id_(IdOf(options.output)) {}

std::optional<Lister::FileId> Lister::IdOf(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileId(status.st_dev, status.st_ino);
}

absl::StatusOr<Listing> Lister::ListFolder(const std::string& folder) {
  const fs::path base = fs::path(input_) / folder;
  Listing listing;
  std::error_code error;
  for (auto it = fs::directory_iterator(base, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const std::string name = fs::path(folder) / it->path().filename();
    std::error_code ignored;  // of what cannot be looked at; reading it will fail, with a message
    if (IsHidden(it->path().filename())) {
      CountHidden(name);
    } else if (it->is_regular_file(ignored) || !it->exists(ignored)) {
      listing.files.push_back(name);
    } else if (!it->is_directory(ignored)) {
      warnings_.push_back(absl::StrCat(name, " is left out: it is not a regular file"));
    } else if (output_id_ && IdOf(it->path()) == output_id_) {
      found_output_ = true;
    } else {
      listing.folders.push_back(name);
    }
  }
  if (error) return IoError("list", base, error.value());
  std::ranges::sort(listing.folders);
  std::ranges::sort(listing.files);
  return listing;
}

absl::StatusOr<Listing> Lister::List() {
  return ListFolder("");
}

absl::Status Lister::AddTree(const std::string& folder, std::vector<FileId>* above,
                             std::vector<std::string>* names) {
  const std::optional<FileId> id = IdOf(fs::path(input_) / folder);
  if (id && std::ranges::find(*above, *id) != above->end()) {
    warnings_.push_back(
        absl::StrCat("the link ", folder, " is not followed: it leads to a folder that contains it"));
    return absl::OkStatus();
  }
  above->push_back(id.value_or(FileId()));
  ASSIGN_OR_RETURN(const Listing listing, ListFolder(folder));
  names->insert(names->end(), listing.files.begin(), listing.files.end());
  for (const std::string& name : listing.folders) RETURN_IF_ERROR(AddTree(name, above, names));
  above->pop_back();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Lister::ListTree(const std::string& folder) {
  std::vector<FileId> above = {IdOf(input_).value_or(FileId())};
  std::vector<std::string> names;
  RETURN_IF_ERROR(AddTree(folder, &above, &names));
  std::ranges::sort(names);
  return names;
}

void Lister::CountHidden(const std::string& name) {
  if (hidden_++ == 0 || name < first_hidden_) first_hidden_ = name;
}

void Lister::Report(ImageSource* source) const {
  if (hidden_ > 0) {
    source->Note(
        absl::StrCat(hidden_, " hidden files and folders are left out, the first is ", first_hidden_));
  }
  if (found_output_)
    source->Note(absl::StrCat("the output directory ", output_, " is inside the input and is left out"));
  for (const std::string& warning : warnings_) source->Warn(warning);
}

bool IsHidden(const std::string& path) {
  return std::ranges::any_of(fs::path(path), [](const fs::path& part) {
    return part.native().starts_with(".") && part != "." && part != "..";
  });
}

}  // namespace deeper
