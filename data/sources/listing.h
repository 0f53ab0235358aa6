// Lists the directories of an input, and reports what it leaves out of them.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/sources/source.h"

namespace deeper {

// Names, sorted.
struct Listing {
  std::vector<std::string> folders, files;
};

// Links are followed. Left out: hidden files and folders, the output directory, and what is neither a folder
// nor a regular file (a pipe or a device, which could be read for ever). A link to nothing counts as a file:
// reading it will fail, with a message.
class Lister {
 public:
  explicit Lister(const SourceOptions& options);

  // What is directly in the input.
  absl::StatusOr<Listing> List();
  // All files below the input's folder `folder`, as names relative to the input. A link to a folder that
  // contains it is not followed.
  absl::StatusOr<std::vector<std::string>> ListTree(const std::string& folder);

  void CountHidden(const std::string& name);
  // Notes and warnings for all that was left out so far.
  void Report(ImageSource* source) const;

 private:
  using FileId = std::pair<dev_t, ino_t>;
  static std::optional<FileId> IdOf(const std::string& path);
  absl::StatusOr<Listing> ListFolder(const std::string& folder);
  // `above`: the folders that contain `folder`.
  absl::Status AddTree(const std::string& folder, std::vector<FileId>* above,
                       std::vector<std::string>* names);

  const std::string input_, output_;
  const std::optional<FileId> output_id_;
  int64_t hidden_ = 0;
  std::string first_hidden_;
  bool found_output_ = false;
  std::vector<std::string> warnings_;
};

// Whether a part of `path` begins with a dot, "." and ".." aside.
bool IsHidden(const std::string& path);

}  // namespace deeper
