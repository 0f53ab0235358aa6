#include "data/sources/source.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

class FileSource final : public ImageSource {
 public:
  FileSource(std::string input, std::vector<std::string> archives, std::vector<ImageFile> images,
             std::vector<std::string> classes)
      : ImageSource(std::move(classes)),
        input_(std::move(input)),
        archives_(std::move(archives)),
        images_(std::move(images)) {}
  int64_t size() const override { return static_cast<int64_t>(images_.size()); }
  int channels() const override { return 3; }
  std::string Name(int64_t i) const override { return images_[static_cast<size_t>(i)].name; }
  int Label(int64_t i) const override { return images_[static_cast<size_t>(i)].label; }

  absl::StatusOr<SourceSample> Load(int64_t i) const override {
    constexpr uint64_t kMaxBytes = uint64_t{1} << 30;
    const ImageFile& image = images_[static_cast<size_t>(i)];
    const bool own_file = image.archive < 0;
    ASSIGN_OR_RETURN(const File file,
                     File::Open(own_file ? (std::filesystem::path(input_) / image.name).string()
                                         : archives_[static_cast<size_t>(image.archive)],
                                O_RDONLY));
    ASSIGN_OR_RETURN(const uint64_t bytes, own_file ? file.Size() : image.bytes);
    if (bytes == 0) return DataLoss("empty file");
    if (bytes > kMaxBytes) return OutOfRange("file of ", bytes, " bytes");
    SourceSample sample;
    sample.file.resize(bytes);
    RETURN_IF_ERROR(file.ReadAt(image.offset, sample.file.data(), bytes));
    return sample;
  }

 private:
  const std::string input_;
  const std::vector<std::string> archives_;
  const std::vector<ImageFile> images_;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ListedClasses(const SourceOptions& options) {
  const std::string path = absl::StrCat(options.input, "/classes.txt");
  absl::StatusOr<std::vector<std::string>> classes = ReadLines(path);
  if (absl::IsNotFound(classes.status())) return options.known_classes;
  RETURN_IF_ERROR(classes.status());
  if (classes->empty() || std::set(classes->begin(), classes->end()).size() != classes->size()) {
    return InvalidArgument(path, " is empty or names a class twice; write one name a line");
  }
  for (const std::string& name : *classes) {
    if (name.find('\0') != std::string::npos)
      return InvalidArgument(path, " is not UTF-8 text; save it as UTF-8");
    if (absl::StripAsciiWhitespace(name) == name) continue;
    return InvalidArgument(path, ": \"", name, "\" begins or ends with a blank; remove the blank");
  }
  if (!options.known_classes.empty() && *classes != options.known_classes) {
    return InvalidArgument(
        path,
        " differs from the classes of the splits already in the output directory; make them the "
        "same, or pack into another directory");
  }
  return classes;
}

absl::Status CheckAreClasses(const std::string& input, const std::string& what,
                             const std::vector<std::string>& found, const std::vector<std::string>& classes,
                             const std::string& where) {
  for (const std::string& name : found) {
    if (std::ranges::find(classes, name) != classes.end()) continue;
    return InvalidArgument(what, " ", name, " of ", input, " is not one of the ", classes.size(),
                           " classes of ", where, "; remove it, or pack into another directory");
  }
  return absl::OkStatus();
}

std::unique_ptr<ImageSource> MakeFileSource(std::string input, std::vector<std::string> archives,
                                            std::vector<ImageFile> images, std::vector<std::string> classes) {
  return std::make_unique<FileSource>(std::move(input), std::move(archives), std::move(images),
                                      std::move(classes));
}

}  // namespace deeper
