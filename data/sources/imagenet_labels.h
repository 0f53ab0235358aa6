// Which class each of ImageNet's validation images has. Their files do not say: the devkit does, in its own
// order of the classes, or Caffe's val.txt, in the order of the sorted wnids that labels go by here.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deeper {

struct Devkit {
  std::vector<std::string> wnids;  // of the classes, sorted
  // Entry n - 1 is the label of ILSVRC2012_val_<n>.JPEG, as an index into `wnids`.
  std::vector<int> val_labels;
};

// From ILSVRC2012_devkit_t12.tar.gz in `directory`, or that folder unpacked; nullopt where there is neither.
// DataLoss, InvalidArgument: it cannot be read, or is not what a devkit is.
absl::StatusOr<std::optional<Devkit>> ReadDevkit(const std::string& directory);

// Labels by file name, from lines "<name> <label>"; nullopt where there is no `path`.
absl::StatusOr<std::optional<std::map<std::string, int>>> ReadLabelList(const std::string& path);

// n00000000
bool IsWnid(const std::string& name);
// n of ILSVRC2012_val_<n>.JPEG; 0 if that is not the name.
int ValImageNumber(const std::string& name);

}  // namespace deeper
