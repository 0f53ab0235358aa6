// Reads WebDataset archives: tar archives in which the members with the same name up to the first dot, such
// as "cats/1.jpg" and "cats/1.cls", are one sample (https://github.com/webdataset/webdataset).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/io/tar.h"

namespace deeper {

struct WebSample {
  TarMember image;    // its name is the member's
  std::string label;  // the text of .cls, or "label" of .json, without white space around it; not empty
};

struct WebArchive {
  std::vector<WebSample> samples;          // in the order of their first members
  std::vector<std::string> hidden;         // members whose name begins with a dot
  std::vector<std::string> without_image;  // names of samples up to the dot
};

// Of the archive in the first `bytes` of what `read` reads. The members of a sample may lie apart. Members
// with other endings are ignored. Errors as ListTar. InvalidArgument: a sample with two images or labels, or
// with an image and without a label.
absl::StatusOr<WebArchive> ReadWebArchive(const ReadAt& read, uint64_t bytes);

}  // namespace deeper
