// WebDataset: tar archives with consecutive members "<key>.jpg" and "<key>.cls" or "<key>.json". The input is
// a directory, an archive, or a pattern of archives such as "train-{000..009}.tar" and "train-*.tar".
#include <fcntl.h>
#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/io/file.h"
#include "data/io/webdataset.h"
#include "data/sources/labels.h"
#include "data/sources/listing.h"
#include "data/sources/source.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxArchives = 1'000'000;

// The texts that "000..009" or "train,val" stands for.
absl::StatusOr<std::vector<std::string>> ExpandBraces(absl::string_view inside) {
  const std::vector<std::string> ends = absl::StrSplit(inside, absl::MaxSplits("..", 1));
  uint64_t first = 0, last = 0;
  const auto is_number = [](const std::string& text, uint64_t* number) {
    return std::ranges::all_of(text, absl::ascii_isdigit) && absl::SimpleAtoi(text, number);
  };
  if (ends.size() == 2 && is_number(ends[0], &first) && is_number(ends[1], &last) && first <= last &&
      last - first < kMaxArchives) {
    const size_t width = absl::StartsWith(ends[0], "0") ? ends[0].size() : 0;
    std::vector<std::string> numbers;
    for (uint64_t number = first; number <= last; ++number) {
      const std::string digits = absl::StrCat(number);
      numbers.push_back(std::string(width - std::min(width, digits.size()), '0') + digits);
    }
    return numbers;
  }
  const std::vector<std::string> list = absl::StrSplit(inside, ',');
  if (list.size() > 1) return list;
  return InvalidArgument("{", inside, "} is neither a range such as {000..009} nor a list such as {a,b}");
}

// The patterns without braces that `pattern` stands for, in order.
absl::Status AddExpanded(const std::string& pattern, std::vector<std::string>* patterns) {
  const size_t close = pattern.find('}');
  const size_t open = close == std::string::npos ? close : pattern.rfind('{', close);
  if (open == std::string::npos) {
    patterns->push_back(pattern);
    return patterns->size() <= kMaxArchives ? absl::OkStatus()
                                            : InvalidArgument("more than ", kMaxArchives, " archives");
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                   ExpandBraces(absl::string_view(pattern).substr(open + 1, close - open - 1)));
  for (const std::string& text : texts) {
    RETURN_IF_ERROR(
        AddExpanded(absl::StrCat(pattern.substr(0, open), text, pattern.substr(close + 1)), patterns));
  }
  return absl::OkStatus();
}

// The files that match, or `pattern` itself if it has no wildcards.
absl::StatusOr<std::vector<std::string>> Glob(const std::string& pattern) {
  std::error_code unknown;  // opening the file reports the error
  if (pattern.find_first_of("*?[") == std::string::npos || fs::exists(pattern, unknown))
    return std::vector<std::string>{pattern};
  glob_t matches = {};
  const int result = glob(pattern.c_str(), GLOB_ERR, nullptr, &matches);
  std::vector<std::string> files(matches.gl_pathv, matches.gl_pathv + (result == 0 ? matches.gl_pathc : 0));
  globfree(&matches);
  if (files.empty()) return NotFound("no file matches ", pattern);
  return files;
}

// A name with its digits left out, such as "train-#.tar".
std::string WithoutNumbers(const std::string& name) {
  std::string series;
  for (const char c : name) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) {
      series.push_back(c);
    } else if (!absl::EndsWith(series, "#")) {
      series.push_back('#');
    }
  }
  return series;
}

// Archives, and the folder that names of samples are relative to.
struct Archives {
  std::string folder;
  std::vector<std::string> paths;
};

absl::StatusOr<Archives> FindInFolder(const SourceOptions& options, Lister* lister) {
  ASSIGN_OR_RETURN(const Listing listing, lister->List());
  Archives archives{options.input, {}};
  std::set<std::string> series;
  bool compressed = false;
  for (const std::string& name : listing.files) {
    compressed |= absl::EndsWith(name, ".tar.gz") || absl::EndsWith(name, ".tgz");
    if (!absl::EndsWith(name, ".tar")) continue;
    archives.paths.push_back(absl::StrCat(options.input, "/", name));
    series.insert(WithoutNumbers(name));
  }
  if (archives.paths.empty()) {
    return InvalidArgument("no archives *.tar in ", options.input,
                           compressed ? "; decompress the .tar.gz with gunzip"
                           : listing.folders.empty()
                               ? ""
                               : absl::StrCat("; pass one of its folders, such as --input=", options.input,
                                              "/", listing.folders[0]));
  }
  if (series.size() > 1) {
    return InvalidArgument(options.input, " has several series of archives, such as ", *series.begin(),
                           " and ", *series.rbegin(),
                           "; pass a pattern for those of one split, such as --input='", options.input,
                           "/train-*.tar'");
  }
  return archives;
}

absl::StatusOr<Archives> FindArchives(const SourceOptions& options, Lister* lister) {
  const std::string& input = options.input;
  if (absl::StrContains(input, "://") || absl::StartsWith(input, "pipe:")) {
    return InvalidArgument("--input=", input, " is not a file of this machine; download the archives first");
  }
  std::error_code unknown;
  if (fs::is_directory(input, unknown)) return FindInFolder(options, lister);
  Archives archives{fs::path(input.substr(0, input.find_first_of("{*?["))).parent_path(), {}};
  if (archives.folder.empty()) archives.folder.assign(1, '.');
  std::vector<std::string> patterns;
  RETURN_IF_ERROR(AddExpanded(input, &patterns));
  for (const std::string& pattern : patterns) {
    ASSIGN_OR_RETURN(const std::vector<std::string> files, Glob(pattern));
    archives.paths.insert(archives.paths.end(), files.begin(), files.end());
  }
  std::set<std::string> seen;
  for (const std::string& path : archives.paths) {
    if (!seen.insert(path).second) return InvalidArgument("--input=", input, " names ", path, " twice");
  }
  return archives;
}

absl::StatusOr<WebArchive> ReadArchive(const std::string& path) {
  ASSIGN_OR_RETURN(File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(const uint64_t bytes, file.Size());
  const ReadAt read = [&](uint64_t at, void* data, size_t count) { return file.ReadAt(at, data, count); };
  absl::StatusOr<WebArchive> archive = ReadWebArchive(read, bytes);
  if (archive.ok()) return archive;
  return absl::Status(archive.status().code(), absl::StrCat(path, ": ", archive.status().message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenWebdataset(const SourceOptions& options) {
  Lister lister(options);
  ASSIGN_OR_RETURN(Archives found, FindArchives(options, &lister));
  SourceOptions in_folder = options;
  in_folder.input = found.folder;
  ASSIGN_OR_RETURN(std::vector<std::string> listed, ListedClasses(in_folder));
  std::vector<WebArchive> archives(found.paths.size());
  ProgressCounter counter(options.progress, "index", std::ssize(archives));
  RETURN_IF_ERROR(RunJobs(options.jobs, std::ssize(archives), [&](int64_t i) {
    ASSIGN_OR_RETURN(archives[static_cast<size_t>(i)], ReadArchive(found.paths[static_cast<size_t>(i)]));
    counter.Add(1);
    return absl::OkStatus();
  }));
  std::vector<ImageFile> images;
  std::vector<TextLabel> texts;
  std::vector<std::string> without_image;
  for (size_t i = 0; i < archives.size(); ++i) {
    const std::string archive = fs::path(found.paths[i]).lexically_relative(found.folder);
    for (WebSample& sample : archives[i].samples) {
      std::string name = absl::StrCat(archive, "/", sample.image.name);
      texts.push_back({std::move(sample.label), name});
      images.push_back({std::move(name), 0, static_cast<int>(i), sample.image.offset, sample.image.bytes});
    }
    for (const std::string& name : archives[i].hidden) lister.CountHidden(absl::StrCat(archive, "/", name));
    for (const std::string& key : archives[i].without_image)
      without_image.push_back(absl::StrCat(archive, "/", key));
  }
  ASSIGN_OR_RETURN(NumberedLabels numbered, NumberLabels(texts, std::move(listed)));
  for (size_t i = 0; i < images.size(); ++i) images[i].label = numbered.labels[i];
  auto source =
      MakeFileSource(found.folder, std::move(found.paths), std::move(images), std::move(numbered.classes));
  lister.Report(source.get());
  WarnOfEmptyClasses(source.get());
  if (!without_image.empty()) {
    source->Warn(absl::StrCat(without_image.size(), " samples without an image are left out, the first is ",
                              without_image[0]));
  }
  return source;
}

}  // namespace deeper
