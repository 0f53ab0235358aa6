#include "data/pack/pack_source.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/base/status.h"

namespace deeper {

absl::StatusOr<std::vector<std::string>> ListedClasses(const std::string& input,
                                                       const std::vector<std::string>& known_classes) {
  const std::string path = absl::StrCat(input, "/classes.txt");
  absl::StatusOr<std::vector<uint8_t>> text = ReadFile(path);
  if (absl::IsNotFound(text.status())) return known_classes;
  if (!text.ok()) return text.status();
  const std::vector<std::string> classes =
      absl::StrSplit(std::string(text->begin(), text->end()), absl::ByAnyChar("\r\n"), absl::SkipEmpty());
  if (classes.empty() || std::set(classes.begin(), classes.end()).size() != classes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is empty or names a class twice; write one name a line"));
  }
  if (!known_classes.empty() && classes != known_classes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     " differs from the classes of the splits already in the output directory; make them the "
                     "same, or pack into another directory"));
  }
  return classes;
}

absl::StatusOr<SourceSample> LoadImageFile(const File& file, uint64_t offset, uint64_t bytes) {
  constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
  if (bytes == 0) return absl::DataLossError("empty file");
  if (bytes > kMaxBytes) return absl::OutOfRangeError(absl::StrCat("file of ", bytes, " bytes"));
  SourceSample sample;
  sample.file.resize(bytes);
  RETURN_IF_ERROR(file.ReadAt(offset, sample.file.data(), bytes));
  return sample;
}

}  // namespace deeper
