// ImageNet (ILSVRC 2012) as Kaggle distributes it: JPEG files in ILSVRC/Data/CLS-LOC/train/<wnid> and in
// ILSVRC/Data/CLS-LOC/val, LOC_val_solution.csv and LOC_synset_mapping.txt.
#include <algorithm>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "data/io/csv.h"
#include "data/io/file.h"
#include "data/sources/imagenet_labels.h"
#include "data/sources/labels.h"
#include "data/sources/listing.h"
#include "data/sources/source.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr char kSolution[] = "LOC_val_solution.csv", kMapping[] = "LOC_synset_mapping.txt";

absl::StatusOr<std::string> FindImages(const SourceOptions& options) {
  for (const char* const folder : {"ILSVRC/Data/CLS-LOC", "Data/CLS-LOC"}) {
    const std::string path = absl::StrCat(options.input, "/", folder, "/", options.split);
    std::error_code unknown;
    if (fs::is_directory(path, unknown)) return path;
  }
  return NotFound(options.input, " has no folder ILSVRC/Data/CLS-LOC/", options.split,
                  "; --input must be the folder with Kaggle's unpacked download");
}

// The wnids, from lines "n01440764 tench, Tinca tinca"; empty if there is no mapping.
absl::StatusOr<std::vector<std::string>> ReadMapping(const std::string& path) {
  const absl::StatusOr<std::vector<std::string>> lines = ReadLines(path);
  std::vector<std::string> wnids;
  if (absl::IsNotFound(lines.status())) return wnids;
  RETURN_IF_ERROR(lines.status());
  for (const std::string& line : *lines) {
    wnids.push_back(line.substr(0, line.find(' ')));
    if (!IsWnid(wnids.back())) return InvalidArgument(path, ": \"", line, "\" does not begin with a wnid");
  }
  std::ranges::sort(wnids);
  const auto twice = std::ranges::adjacent_find(wnids);
  if (twice != wnids.end()) return InvalidArgument(path, " has ", *twice, " twice");
  return wnids;
}

// The wnid of each validation image by its name without .JPEG, from lines "ImageId,n01440764 1 2 3 4 ...".
absl::StatusOr<std::map<std::string, std::string>> ReadSolution(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  absl::StatusOr<std::vector<CsvRow>> rows = ParseCsv(text);
  if (!rows.ok()) return InvalidArgument(path, ": ", rows.status().message());
  if (rows->empty() || rows->front().cells != std::vector<std::string>{"ImageId", "PredictionString"})
    return InvalidArgument(path, " does not begin with ImageId,PredictionString");
  std::map<std::string, std::string> wnids;
  for (auto row = rows->begin() + 1; row != rows->end(); ++row) {
    std::string wnid = row->cells.size() == 2 ? row->cells[1].substr(0, row->cells[1].find(' ')) : "";
    if (!IsWnid(wnid) || !wnids.emplace(row->cells[0], std::move(wnid)).second) {
      return InvalidArgument(path, ", line ", row->line,
                             ": not an image and a prediction that begins with a ",
                             "wnid, or an image that an earlier line names");
    }
  }
  return wnids;
}

absl::StatusOr<std::unique_ptr<ImageSource>> OpenVal(const SourceOptions& options, const Listing& listing,
                                                     const std::string& solution, const Lister& lister) {
  ASSIGN_OR_RETURN(auto wnids, ReadSolution(solution));
  std::vector<ImageFile> images;
  std::vector<TextLabel> labels;
  std::vector<std::string> others;
  for (const std::string& name : listing.files) {
    if (ValImageNumber(name) == 0) {
      others.push_back(name);
      continue;
    }
    const auto found = wnids.find(fs::path(name).stem());
    if (found == wnids.end()) return InvalidArgument(solution, " has no label for ", name);
    images.push_back({name});
    labels.push_back({std::move(found->second), name});
    wnids.erase(found);
  }
  ASSIGN_OR_RETURN(NumberedLabels numbered, NumberLabels(labels, options.known_classes));
  for (size_t i = 0; i < images.size(); ++i) images[i].label = numbered.labels[i];
  auto source = MakeFileSource(options.input, {}, std::move(images), std::move(numbered.classes));
  lister.Report(source.get());
  WarnOfEmptyClasses(source.get());
  if (!wnids.empty()) {
    source->Warn(absl::StrCat(wnids.size(), " images of ", kSolution, " do not exist in ", options.input,
                              "; the first is ", wnids.begin()->first));
  }
  if (!others.empty())
    source->Warn(absl::StrCat(others.size(), " other files are left out; the first is ", others[0]));
  return source;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenKaggle(const SourceOptions& options) {
  if (options.split != "train" && options.split != "val") {
    return InvalidArgument("Kaggle's ImageNet has the splits train and val, and test without labels; not \"",
                           options.split, "\"");
  }
  SourceOptions images = options;
  ASSIGN_OR_RETURN(images.input, FindImages(options));
  ASSIGN_OR_RETURN(const std::vector<std::string> wnids,
                   ReadMapping(absl::StrCat(options.input, "/", kMapping)));
  ASSIGN_OR_RETURN(images.known_classes, ImagenetClasses(options, wnids, kMapping));
  Lister lister(images);
  ASSIGN_OR_RETURN(const Listing listing, lister.List());
  const bool flat =
      std::ranges::any_of(listing.files, [](const std::string& name) { return ValImageNumber(name) > 0; });
  ASSIGN_OR_RETURN(std::unique_ptr<ImageSource> source,
                   flat ? OpenVal(images, listing, absl::StrCat(options.input, "/", kSolution), lister)
                        : OpenFolder(images));
  RETURN_IF_ERROR(CheckImagenet(options, source.get()));
  return source;
}

}  // namespace deeper
