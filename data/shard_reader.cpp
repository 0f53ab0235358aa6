#include "data/shard_reader.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/dataset.h"
#include "data/image_codec.h"

namespace deeper {
namespace {

constexpr size_t kProblemsShown = 10;

// The header that shard `index` of `split` must have.
ShardHeader ExpectedHeader(const SplitManifest& split, const std::string& name, size_t index) {
  ShardHeader header;
  header.encoding = split.encoding;
  header.channels = split.channels;
  header.uuid = split.uuid;
  header.split = name;
  header.shard_index = static_cast<int64_t>(index);
  header.shard_count = static_cast<int64_t>(split.shards.size());
  for (size_t i = 0; i < index; ++i) header.first_sample += split.shards[i].samples;
  header.samples = split.shards[index].samples;
  header.total_samples = split.samples;
  return header;
}

// How a shard that is sound in itself fails to be the one expected; empty if it is.
std::string Mismatch(const ShardFile& shard, const ShardHeader& expected,
                     const std::vector<std::string>& classes) {
  const ShardHeader& header = shard.header();
  if (header.uuid != expected.uuid) {
    return absl::StrCat(" belongs to another dataset (dataset_uuid ", header.uuid, ", the manifest's is ",
                        expected.uuid, ")");
  }
  if (header.shard_index != expected.shard_index) {
    return absl::StrCat(" is a duplicate of shard ", header.shard_index, ", in the place of shard ",
                        expected.shard_index);
  }
  const bool same = header == expected && shard.index().classes.bytes == FixedStrings(classes).bytes;
  return same ? "" : " has attributes or classes other than the manifest's";
}

void AddUnlistedShards(const std::string& directory, const std::string& split,
                       const std::set<std::string>& listed, std::vector<ShardProblem>* problems) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    if (IsShardFileName(name, split) && !listed.contains(name)) {
      problems->push_back(
          {entry.path(), -1,
           absl::StrCat(entry.path().string(),
                        " is not in the manifest: a duplicate, or left over from another packing")});
    }
  }
}

std::string Summarize(const std::vector<ShardProblem>& problems) {
  const size_t shown = std::min(problems.size(), kProblemsShown);
  std::string text =
      absl::StrJoin(problems.begin(), problems.begin() + static_cast<ptrdiff_t>(shown), "\n  ",
                    [](std::string* out, const ShardProblem& problem) { out->append(problem.what); });
  if (shown < problems.size()) absl::StrAppend(&text, "\n  and ", problems.size() - shown, " more");
  return text;
}

class ShardDataset : public Dataset {
 public:
  ShardDataset(DatasetInfo info, Encoding encoding, std::vector<ShardFile> shards)
      : info_(std::move(info)), encoding_(encoding), shards_(std::move(shards)) {}

  const DatasetInfo& info() const override { return info_; }

  int32_t label(int64_t index) const override {
    const auto [shard, i] = Find(index);
    return shard.index().label[static_cast<size_t>(i)];
  }

  std::string Describe(int64_t index) const override {
    const auto [shard, i] = Find(index);
    return shard.Describe(i);
  }

  absl::Status Read(int64_t index, Image* image) const override {
    return ReadPart(
        index,
        [](ImageSize size) {
          return PixelRect{0, 0, size.width, size.height};
        },
        image);
  }

  absl::Status ReadPart(int64_t index, ChoosePart choose, Image* image) const override {
    const auto [shard, i] = Find(index);
    if (encoding_ == Encoding::kRaw) {  // its checksum needs all of it
      image->height = shard.index().height[static_cast<size_t>(i)];
      image->width = shard.index().width[static_cast<size_t>(i)];
      image->channels = info_.channels;
      image->x = image->y = 0;
      choose({image->height, image->width});
      return shard.Read(i, &image->pixels);
    }
    thread_local std::vector<uint8_t> file;
    if (absl::Status read = shard.Read(i, &file); !read.ok()) return read;
    absl::Status decoded = DecodePart(file, info_.channels, choose, image);
    return decoded.ok() ? decoded
                        : absl::DataLossError(absl::StrCat(shard.Describe(i), ": ", decoded.message()));
  }

 private:
  // The shard that holds sample `index` of the split, and the sample's index in it.
  std::pair<const ShardFile&, int64_t> Find(int64_t index) const {
    const auto after =
        std::upper_bound(shards_.begin(), shards_.end(), index,
                         [](int64_t i, const ShardFile& shard) { return i < shard.header().first_sample; });
    const ShardFile& shard = *std::prev(after);
    return {shard, index - shard.header().first_sample};
  }

  DatasetInfo info_;
  Encoding encoding_;
  std::vector<ShardFile> shards_;
};

}  // namespace

std::vector<ShardFile> OpenShardFiles(const std::string& directory, const Manifest& manifest,
                                      const std::string& split, std::vector<ShardProblem>* problems) {
  const SplitManifest& listing = manifest.splits.at(split);
  std::vector<ShardFile> shards;
  std::set<std::string> listed;
  for (size_t i = 0; i < listing.shards.size(); ++i) {
    const ShardEntry& entry = listing.shards[i];
    const std::string path = absl::StrCat(directory, "/", entry.file);
    listed.insert(entry.file);
    absl::StatusOr<ShardFile> shard = ShardFile::Open(path);
    std::string what(shard.status().message());
    if (shard.ok() && shard->bytes() != entry.bytes) {
      what = absl::StrCat(path, " has ", shard->bytes(), " bytes, the manifest says ", entry.bytes);
    } else if (shard.ok()) {
      what = Mismatch(*shard, ExpectedHeader(listing, split, i), manifest.classes);
      if (!what.empty()) what = path + what;
    }
    if (what.empty()) {
      shards.push_back(*std::move(shard));
    } else {
      problems->push_back({path, -1, what});
    }
  }
  AddUnlistedShards(directory, split, listed, problems);
  return shards;
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenShards(const std::string& dir, const std::string& split) {
  absl::StatusOr<Manifest> manifest = ReadManifest(dir);
  if (!manifest.ok()) return manifest.status();
  const auto found = manifest->splits.find(split);
  if (found == manifest->splits.end()) {
    return absl::NotFoundError(
        absl::StrCat(dir, " has no split \"", split, "\", only ",
                     absl::StrJoin(manifest->splits, ", ",
                                   [](std::string* out, const auto& entry) { out->append(entry.first); })));
  }
  std::vector<ShardProblem> problems;
  std::vector<ShardFile> shards = OpenShardFiles(dir, *manifest, split, &problems);
  if (!problems.empty()) {
    return absl::DataLossError(absl::StrCat("the shards of split ", split, " in ", dir,
                                            " cannot be used:\n  ", Summarize(problems),
                                            "\nRestore them or pack again."));
  }
  const SplitManifest& listing = found->second;
  DatasetInfo info{listing.uuid,   split,         listing.samples,   listing.channels,
                   listing.height, listing.width, manifest->classes, manifest->StatsFor(split)};
  return std::make_unique<ShardDataset>(std::move(info), listing.encoding, std::move(shards));
}

}  // namespace deeper
