#include "data/sources/imagenet_labels.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "data/io/file.h"
#include "data/io/inflate.h"
#include "data/io/mat_file.h"
#include "data/io/tar.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kClasses = 1000, kTrainImages = 1281167, kValImages = 50000;
constexpr char kDevkit[] = "ILSVRC2012_devkit_t12";
constexpr char kMeta[] = "data/meta.mat", kTruth[] = "data/ILSVRC2012_validation_ground_truth.txt";
constexpr size_t kMaxDevkitBytes = size_t{256} << 20;

struct DevkitFiles {
  std::vector<uint8_t> meta, truth;
};

absl::Status Describe(const absl::Status& status, const std::string& path) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

absl::StatusOr<DevkitFiles> FromArchive(const std::string& path) {
  ASSIGN_OR_RETURN(std::vector<uint8_t> packed, ReadFile(path));
  absl::StatusOr<std::vector<uint8_t>> tar = Inflate(packed, kMaxDevkitBytes);
  if (!tar.ok()) return Describe(tar.status(), path);
  const ReadAt read = [&](uint64_t offset, void* data, size_t bytes) {
    std::memcpy(data, &(*tar)[offset], bytes);
    return absl::OkStatus();
  };
  absl::StatusOr<std::vector<TarMember>> members = ListTar(read, 0, tar->size());
  if (!members.ok()) return Describe(members.status(), path);
  DevkitFiles files;
  for (const TarMember& member : *members) {
    const auto begin = tar->begin() + static_cast<ptrdiff_t>(member.offset);
    const std::vector<uint8_t> content(begin, begin + static_cast<ptrdiff_t>(member.bytes));
    if (absl::EndsWith(member.name, kMeta)) files.meta = content;
    if (absl::EndsWith(member.name, kTruth)) files.truth = content;
  }
  return files;
}

absl::StatusOr<DevkitFiles> FromFolder(const std::string& path) {
  ASSIGN_OR_RETURN(std::vector<uint8_t> meta, ReadFile(absl::StrCat(path, "/", kMeta)));
  ASSIGN_OR_RETURN(std::vector<uint8_t> truth, ReadFile(absl::StrCat(path, "/", kTruth)));
  return DevkitFiles{std::move(meta), std::move(truth)};
}

// The value of field `name` of structure `i`; an empty array if there is no such field.
const MatArray& Field(const MatArray& structs, size_t i, std::string_view name) {
  static const MatArray kNone;
  const auto found = std::find(structs.fields.begin(), structs.fields.end(), name);
  const size_t f = static_cast<size_t>(found - structs.fields.begin()), fields = structs.fields.size();
  return f < fields ? structs.elements[i * fields + f] : kNone;
}

// The wnids of the classes by ILSVRC2012_ID - 1. The table also contains the inner nodes of WordNet's tree.
// The classes are the leaves and have ids from 1.
absl::StatusOr<std::vector<std::string>> ReadWnids(const std::vector<uint8_t>& meta) {
  ASSIGN_OR_RETURN(MatArray synsets, ReadMatVariable(meta, "synsets"));
  const size_t rows = synsets.fields.empty() ? 0 : synsets.elements.size() / synsets.fields.size();
  std::map<double, std::string> leaves;
  for (size_t i = 0; i < rows; ++i) {
    const MatArray &id = Field(synsets, i, "ILSVRC2012_ID"), &children = Field(synsets, i, "num_children"),
                   &wnid = Field(synsets, i, "WNID");
    if (id.numbers.size() != 1 || children.numbers.size() != 1 || !IsWnid(wnid.text)) {
      return InvalidArgument("synset ", i, " lacks an id, wnid or num_children");
    }
    if (children.numbers[0] == 0) leaves[id.numbers[0]] = wnid.text;
  }
  std::vector<std::string> wnids;
  for (const auto& [id, wnid] : leaves) {
    wnids.push_back(wnid);
    if (id != static_cast<double>(wnids.size()))
      return InvalidArgument("the ids of the synsets without children are not 1, 2, 3, ...");
  }
  if (wnids.empty()) return InvalidArgument("no synsets without children");
  return wnids;
}

absl::StatusOr<Devkit> ParseDevkit(const DevkitFiles& files) {
  absl::StatusOr<std::vector<std::string>> by_id = ReadWnids(files.meta);
  if (!by_id.ok()) return Describe(by_id.status(), kMeta);
  Devkit devkit{*by_id, {}};
  std::sort(devkit.wnids.begin(), devkit.wnids.end());
  const auto twice = std::adjacent_find(devkit.wnids.begin(), devkit.wnids.end());
  if (twice != devkit.wnids.end()) return InvalidArgument(kMeta, " has ", *twice, " twice");
  const std::string truth(files.truth.begin(), files.truth.end());
  for (const absl::string_view line : absl::StrSplit(truth, absl::ByAnyChar("\r\n"), absl::SkipEmpty())) {
    size_t id = 0;
    if (!absl::SimpleAtoi(line, &id) || id < 1 || id > by_id->size()) {
      return InvalidArgument(kTruth, ", line ", devkit.val_labels.size() + 1, ": \"", line,
                             "\" is not an id from 1 to ", by_id->size());
    }
    const auto label = std::lower_bound(devkit.wnids.begin(), devkit.wnids.end(), (*by_id)[id - 1]);
    devkit.val_labels.push_back(static_cast<int>(label - devkit.wnids.begin()));
  }
  return devkit;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ImagenetClasses(const SourceOptions& options,
                                                         const std::vector<std::string>& wnids,
                                                         const std::string& where) {
  absl::StatusOr<std::vector<std::string>> listed = ListedClasses(options);
  if (!listed.ok() || wnids.empty() || *listed == wnids) return listed;
  if (listed->empty()) return wnids;
  std::vector<std::string> differing, sorted = *listed;
  std::ranges::sort(sorted);
  std::ranges::set_symmetric_difference(sorted, wnids, std::back_inserter(differing));
  return InvalidArgument(
      "the ", wnids.size(), " classes of ", where, " in ", options.input, " differ from the ", listed->size(),
      " of classes.txt or of the splits already packed: ",
      differing.empty() ? "their order differs" : absl::StrCat("only one of the two has ", differing[0]));
}

absl::Status CheckImagenet(const SourceOptions& options, ImageSource* source) {
  const std::vector<std::string>& classes = source->classes();
  const auto bad = std::ranges::find_if_not(classes, IsWnid);
  if (bad != classes.end()) {
    return InvalidArgument("class \"", *bad, "\" is not a wnid (n and 8 digits); --input=", options.input,
                           " must hold one split of ImageNet");
  }
  if (!std::ranges::is_sorted(classes)) {
    return InvalidArgument(
        "the classes in classes.txt are not sorted; ImageNet's labels are the ranks of the sorted wnids");
  }
  const int64_t images = options.split == "train" ? kTrainImages : kValImages;
  if (source->size() != images)
    source->Warn(absl::StrCat(source->size(), " images; ImageNet 2012 has ", images));
  if (std::ssize(classes) != kClasses)
    source->Warn(absl::StrCat(classes.size(), " classes; ImageNet 2012 has ", kClasses));
  return absl::OkStatus();
}

bool IsWnid(const std::string& name) {
  return name.size() == 9 && name[0] == 'n' &&
         std::all_of(name.begin() + 1, name.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
}

int ValImageNumber(const std::string& name) {
  constexpr absl::string_view kPrefix = "ILSVRC2012_val_";
  constexpr size_t kDigits = 8;
  int number = 0;
  const bool named =
      absl::StartsWith(name, kPrefix) &&
      absl::EqualsIgnoreCase(name.substr(std::min(name.size(), kPrefix.size() + kDigits)), ".JPEG") &&
      absl::SimpleAtoi(name.substr(kPrefix.size(), kDigits), &number);
  return named ? std::max(number, 0) : 0;
}

absl::StatusOr<std::optional<Devkit>> ReadDevkit(const std::string& directory) {
  const std::string folder = absl::StrCat(directory, "/", kDevkit), archive = folder + ".tar.gz";
  std::error_code unreadable;  // reading the images reports it
  const bool packed = fs::exists(archive, unreadable);
  if (!packed && !fs::exists(folder, unreadable)) return std::nullopt;
  ASSIGN_OR_RETURN(DevkitFiles files, packed ? FromArchive(archive) : FromFolder(folder));
  absl::StatusOr<Devkit> devkit = ParseDevkit(files);
  if (!devkit.ok()) return Describe(devkit.status(), packed ? archive : folder);
  return *std::move(devkit);
}

absl::StatusOr<std::optional<std::map<std::string, int>>> ReadLabelList(const std::string& path) {
  const absl::StatusOr<std::vector<std::string>> lines = ReadLines(path);
  if (absl::IsNotFound(lines.status())) return std::nullopt;
  RETURN_IF_ERROR(lines.status());
  std::map<std::string, int> labels;
  for (const std::string& line : *lines) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int label = 0;
    if (words.size() != 2 || !absl::SimpleAtoi(words[1], &label) || label < 0 ||
        !labels.emplace(fs::path(words[0]).filename(), label).second) {
      return InvalidArgument(path, ": \"", line,
                             "\" is not \"<image> <label>\", or names an image a second time");
    }
  }
  return labels;
}

}  // namespace deeper
