#include "launch/commands/image_list.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "data/io/file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

bool IsImage(const fs::path& path) {
  const std::string ending = absl::AsciiStrToLower(path.extension().string());
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp";
}

bool IsHidden(const fs::path& path) {
  return path.filename().string().starts_with('.');
}

absl::Status AddFolder(const std::string& folder, std::vector<std::string>& images) {
  std::error_code error;
  std::vector<std::string> found;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code gone;  // reading the file reports the error
    if (IsHidden(entry->path()))
      entry.disable_recursion_pending();
    else if (IsImage(entry->path()) && !entry->is_directory(gone))
      found.push_back(entry->path().string());
  }
  if (error) return IoError("list", folder, error.value());
  if (found.empty()) return NotFound("folder ", folder, " has no files *.jpg, *.jpeg, *.png or *.webp");
  std::ranges::sort(found);
  images.insert(images.end(), found.begin(), found.end());
  return absl::OkStatus();
}

absl::Status AddPattern(const std::string& pattern, std::vector<std::string>& images) {
  glob_t matches = {};
  const int result = glob(pattern.c_str(), GLOB_ERR, nullptr, &matches);
  if (result == 0) images.insert(images.end(), matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  globfree(&matches);
  return result == 0 ? absl::OkStatus() : NotFound("no file matches ", pattern);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ListImages(const std::vector<std::string>& operands) {
  std::vector<std::string> images;
  for (const std::string& operand : operands) {
    std::error_code unknown;  // reading the file reports the error
    if (operand == "-") {
      ASSIGN_OR_RETURN(const std::vector<std::string> lines, ReadLines("/dev/stdin"));
      images.insert(images.end(), lines.begin(), lines.end());
    } else if (fs::is_directory(operand, unknown)) {
      RETURN_IF_ERROR(AddFolder(operand, images));
    } else if (!fs::exists(operand, unknown) && operand.find_first_of("*?[") != std::string::npos) {
      RETURN_IF_ERROR(AddPattern(operand, images));
    } else {
      images.push_back(operand);
    }
  }
  if (images.empty()) return NotFound("the standard input names no image");
  return images;
}

}  // namespace deeper
