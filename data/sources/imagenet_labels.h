// Classes of ImageNet, and labels of its validation images, whose files do not contain them. Sources: the
// devkit, in its own order of the classes, or Caffe's val.txt, in the order of the sorted wnids, which is
// also the order of the labels here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/sources/source.h"

namespace deeper {

struct Devkit {
  std::vector<std::string> wnids;  // of the classes, sorted
  // Entry n - 1 is the label of ILSVRC2012_val_<n>.JPEG, as an index into `wnids`.
  std::vector<int> val_labels;
};

// Reads ILSVRC2012_devkit_t12.tar.gz in `directory`, or its unpacked folder; nullopt if neither exists.
// DataLoss, InvalidArgument: it cannot be read, or is not a devkit.
absl::StatusOr<std::optional<Devkit>> ReadDevkit(const std::string& directory);

// Labels by file name, from lines "<name> <label>"; nullopt if `path` does not exist.
absl::StatusOr<std::optional<std::map<std::string, int>>> ReadLabelList(const std::string& path);

// The classes from classes.txt, other splits, and the sorted `wnids` of `where`, which must agree; empty if
// there are none.
absl::StatusOr<std::vector<std::string>> ImagenetClasses(const SourceOptions& options,
                                                         const std::vector<std::string>& wnids,
                                                         const std::string& where);

// Warns if the numbers of images and classes are not the challenge's. InvalidArgument: classes other than
// sorted wnids; labels must be their ranks, as in models trained elsewhere.
absl::Status CheckImagenet(const SourceOptions& options, ImageSource* source);

// n00000000
bool IsWnid(const std::string& name);
// n of ILSVRC2012_val_<n>.JPEG; 0 for other names.
int ValImageNumber(const std::string& name);

}  // namespace deeper
