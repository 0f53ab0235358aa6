#include "launch/commands/image_list.h"

#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "data/sources/listing.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

bool IsImage(const fs::path& path) {
  const std::string ending = absl::AsciiStrToLower(path.extension().string());
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp";
}

absl::Status AddFolder(const std::string& folder, std::vector<std::string>& images) {
  SourceOptions input;
  input.input = folder;
  Lister lister(input);
  ASSIGN_OR_RETURN(const Listing top, lister.List());
  std::vector<std::string> names = top.files;
  for (const std::string& below : top.folders) {
    ASSIGN_OR_RETURN(const std::vector<std::string> tree, lister.ListTree(below));
    names.insert(names.end(), tree.begin(), tree.end());
  }
  std::erase_if(names, [](const std::string& name) { return !IsImage(name); });
  if (names.empty()) return NotFound("folder ", folder, " has no files *.jpg, *.jpeg, *.png or *.webp");
  std::ranges::sort(names);
  for (const std::string& name : names) images.push_back(fs::path(folder) / name);
  return absl::OkStatus();
}

absl::Status AddPattern(const std::string& pattern, std::vector<std::string>& images) {
  glob_t matches = {};
  const int result = glob(pattern.c_str(), GLOB_ERR, nullptr, &matches);
  if (result == 0) images.insert(images.end(), matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  globfree(&matches);
  return result == 0 ? absl::OkStatus() : NotFound("no file matches ", pattern);
}

// One name per line, from where the standard input stands, which may be a socket.
absl::Status AddStandardInput(std::vector<std::string>& images) {
  std::string line;
  for (bool first = true; std::getline(std::cin, line); first = false) {
    absl::string_view name = absl::StripTrailingAsciiWhitespace(line);
    if (first) absl::ConsumePrefix(&name, "\xEF\xBB\xBF");  // a byte order mark
    if (!name.empty()) images.emplace_back(name);
  }
  return std::cin.bad() ? DataLoss("cannot read the standard input") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ListImages(const std::vector<std::string>& operands) {
  std::vector<std::string> images;
  for (const std::string& operand : operands) {
    std::error_code unknown;  // reading the file reports the error
    if (operand == "-") {
      RETURN_IF_ERROR(AddStandardInput(images));
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
