// A split of packed shards as a Dataset. The data needed of all shards is one block of memory, the split
// index. One rank reads it from the files and sends it to the others.
#include "data/shards/read_shards.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <mutex>
#include <span>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "data/image/image_codec.h"
#include "data/load/stage_clock.h"
#include "data/shards/staging.h"
#include "data/shards/verify_shards.h"
#include "kernels/base/check.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr size_t kProblemsShown = 10;
constexpr int64_t kOtherFiles = 32;  // that a run opens later: checkpoints, metrics, connections
constexpr uint64_t kReadAhead =
    128 << 10;  // bytes: Linux cuts larger requests down to the device's read-ahead

// A split index is the split's name, the manifest's text and, for each shard, its data_offset and the arrays
// that VisitArrays lists. Each part is preceded by its size and padded to 8 bytes. The index stays inside the
// job, among ranks of one build, and so has no version.
template <class Index, class Visit>
void VisitArrays(Index& index, const Visit& visit) {
  visit(index.offset);
  visit(index.length);
  visit(index.crc32c);
  visit(index.label);
  visit(index.width);
  visit(index.height);
}

void PutPiece(const void* data, uint64_t bytes, std::string* out) {
  out->append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
  out->append(static_cast<const char*>(data), bytes);
  out->resize((out->size() + 7) / 8 * 8);
}

// Takes the next piece off the front of `index`.
template <class T>
std::span<const T> TakePiece(std::string_view* index) {
  uint64_t bytes = 0;
  DEEPER_CHECK(index->size() >= sizeof bytes);
  std::memcpy(&bytes, index->data(), sizeof bytes);
  const uint64_t padded = sizeof bytes + (bytes + 7) / 8 * 8;
  DEEPER_CHECK(index->size() >= padded);
  const auto* data = reinterpret_cast<const T*>(index->data() + sizeof bytes);
  index->remove_prefix(padded);
  return {data, bytes / sizeof(T)};
}

std::string Summarize(const std::vector<std::string>& problems) {
  const size_t shown = std::min(problems.size(), kProblemsShown);
  std::string text =
      absl::StrJoin(problems.begin(), problems.begin() + static_cast<ptrdiff_t>(shown), "\n  ");
  if (shown < problems.size()) absl::StrAppend(&text, "\n  and ", problems.size() - shown, " more");
  return text;
}

constexpr std::chrono::milliseconds kLookAgain{500};  // for the server of a network file system

std::atomic<int64_t> files_to_open{0};  // by all data sets of this process

// ResourceExhausted if the limit leaves too few descriptors for the files that data sets will open.
absl::Status CheckFileLimit(size_t shards, const std::string& split) {
  rlimit limit = {};
  std::error_code unknown;
  const auto open = std::distance(std::filesystem::directory_iterator("/proc/self/fd", unknown), {});
  const int64_t needed = open + files_to_open + kOtherFiles;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
      needed <= static_cast<int64_t>(limit.rlim_cur))
    return absl::OkStatus();
  return ResourceExhausted("the ", shards, " shards of split ", split,
                           " stay open while they are in use, and the ", "process may open ", limit.rlim_cur,
                           " files: raise the limit (ulimit -n ", needed,
                           "), or pack with a larger --shard_size");
}

// One shard of the split index. Its file is opened at the first read and stays open.
struct Shard {
  std::string path;
  uint64_t bytes = 0, data_offset = 0;
  int64_t first = 0;  // index in the split of its first sample
  std::span<const uint64_t> offset;
  std::span<const uint32_t> length, crc32c;
  std::span<const uint16_t> label, width, height;

  // The file to read: one of the two below. Neither is ever closed.
  mutable std::atomic<const File*> current = nullptr;
  mutable File original;
  File staged;
};

class ShardDataset : public Dataset {
 public:
  // `index` and `info` are of one split; `shards` is the part of the index that holds the shards.
  ShardDataset(std::string index, DatasetInfo info, const std::string& dir, const SplitManifest& listing,
               std::string_view shards, ReadOptions options)
      : index_(std::move(index)),
        info_(std::move(info)),
        encoding_(listing.encoding),
        options_(std::move(options)),
        shards_(listing.shards.size()),
        files_(std::ssize(shards_) * (options_.stage.dir.empty() ? 1 : 2)) {  // originals, and their copies
    files_to_open += files_;
    int64_t first = 0;
    for (size_t i = 0; i < shards_.size(); ++i) {
      Shard& shard = shards_[i];
      shard.path = absl::StrCat(dir, "/", listing.shards[i].file);
      shard.bytes = listing.shards[i].bytes;
      shard.first = first;
      shard.data_offset = TakePiece<uint64_t>(&shards)[0];
      VisitArrays(shard, [&]<class T>(std::span<const T>& array) { array = TakePiece<T>(&shards); });
      first += listing.shards[i].samples;
    }
  }

  ~ShardDataset() override { files_to_open -= files_; }

  absl::Status Stage(const SplitManifest& listing) {
    std::vector<StagedFile> files;
    for (size_t i = 0; i < shards_.size(); ++i)
      files.push_back({shards_[i].path, shards_[i].bytes, listing.shards[i].xxh3});
    ASSIGN_OR_RETURN(stager_, Stager::Start(options_.stage, std::move(files), [this](size_t i, File copy) {
                       shards_[i].staged = std::move(copy);
                       shards_[i].current = &shards_[i].staged;
                     }));
    return absl::OkStatus();
  }

  // Opens the first shard, to detect before step 0 that a machine lacks the directory.
  absl::Status Check() const {
    RETURN_IF_ERROR(CheckFileLimit(shards_.size(), info_.split));
    return shards_.empty() ? absl::OkStatus() : Original(shards_.front()).status();
  }

  const DatasetInfo& info() const override { return info_; }

  int32_t label(int64_t index) const override {
    const auto [shard, i] = Find(index);
    return shard.label[i];
  }

  std::string Describe(int64_t index) const override {
    const auto [shard, i] = Find(index);
    const absl::StatusOr<ShardFile> file = ShardFile::Open(shard.path);  // which has the samples' names
    return file.ok() && i < file->index().names.size() ? file->Describe(static_cast<int64_t>(i))
                                                       : absl::StrCat(shard.path, ", sample ", i);
  }

  absl::Status Read(int64_t index, Image* image) const override { return ReadPart(index, ChooseAll, image); }

  absl::Status ReadPart(int64_t index, ChoosePart choose, Image* image) const override {
    EnterStage(Stage::kRead);
    const auto [shard, i] = Find(index);
    if (encoding_ == Encoding::kRaw) {  // the checksum needs the whole sample
      image->height = shard.height[i];
      image->width = shard.width[i];
      image->channels = info_.channels;
      image->x = image->y = 0;
      choose({image->height, image->width});
      image->pixels.resize(shard.length[i]);
      return ReadStored(shard, i, image->pixels.data());
    }
    thread_local std::vector<uint8_t> file;
    file.resize(shard.length[i]);
    RETURN_IF_ERROR(ReadStored(shard, i, file.data()));
    EnterStage(Stage::kDecode);
    absl::Status decoded = DecodePart(file, info_.channels, choose, image);
    return decoded.ok() ? decoded : DataLoss(Describe(index), ": ", decoded.message());
  }

  ImageSize StoredPixels(int64_t index) const override {
    if (encoding_ != Encoding::kRaw) return {};
    const auto [shard, i] = Find(index);
    return {shard.height[i], shard.width[i]};
  }

  absl::Status ReadPixels(int64_t index, uint8_t* pixels) const override {
    const auto [shard, i] = Find(index);
    return ReadStored(shard, i, pixels);
  }

  void ReadAhead(Slice samples) const override {
    if (options_.direct_io) return;  // reading ahead fills the page cache
    while (samples.size() > 0) {
      const auto [shard, i] = Find(samples.begin);
      const size_t end = std::min(shard.length.size(), i + static_cast<size_t>(samples.size()));
      const absl::StatusOr<const File*> file = Current(shard);
      if (!file.ok()) return;  // the read will report it
      const uint64_t bytes_end = shard.offset[end - 1] + shard.length[end - 1];
      for (uint64_t at = shard.offset[i]; at < bytes_end; at += kReadAhead) {
        posix_fadvise((*file)->fd(), static_cast<off_t>(shard.data_offset + at), kReadAhead,
                      POSIX_FADV_WILLNEED);
      }
      samples.begin += static_cast<int64_t>(end - i);
    }
  }

 private:
  // The shard that holds sample `index` of the split, and the index within the shard.
  std::pair<const Shard&, size_t> Find(int64_t index) const {
    const auto after = std::upper_bound(shards_.begin(), shards_.end(), index,
                                        [](int64_t i, const Shard& shard) { return i < shard.first; });
    const Shard& shard = *std::prev(after);
    return {shard, static_cast<size_t>(index - shard.first)};
  }

  // The packed file itself. It must still have the size given in the manifest.
  absl::StatusOr<File> OpenOriginal(const Shard& shard) const {
    absl::StatusOr<File> file = File::Open(shard.path, O_RDONLY | (options_.direct_io ? O_DIRECT : 0));
    if (absl::IsFailedPrecondition(file.status()))
      return FailedPrecondition(file.status().message(), "; remove --direct_io");
    RETURN_IF_ERROR(file.status());
    ASSIGN_OR_RETURN(const uint64_t bytes, file->Size());
    if (bytes != shard.bytes) {
      return DataLoss(shard.path, " has ", bytes, " bytes, but the manifest says ", shard.bytes,
                      "; it was changed or replaced while it was in use");
    }
    return file;
  }

  absl::StatusOr<const File*> Original(const Shard& shard) const {
    const std::lock_guard lock(opening_);
    if (shard.original.fd() < 0) {
      ASSIGN_OR_RETURN(shard.original, OpenOriginal(shard));
    }
    return &shard.original;
  }

  absl::StatusOr<const File*> Current(const Shard& shard) const {
    if (const File* const file = shard.current.load(std::memory_order_acquire); file != nullptr) return file;
    absl::StatusOr<const File*> original = Original(shard);
    const File* none = nullptr;  // keeps a staged copy that became ready meanwhile
    if (original.ok()) shard.current.compare_exchange_strong(none, *original);
    return original;
  }

  // The stored bytes of a sample. Tries once more after a failure, then from the original instead of a copy.
  absl::Status ReadStored(const Shard& shard, size_t i, uint8_t* out) const {
    absl::Status read;
    for (const auto file_of : {&ShardDataset::Current, &ShardDataset::Original}) {
      const absl::StatusOr<const File*> file = (this->*file_of)(shard);
      read = file.ok() ? ReadFrom(**file, shard, i, out) : file.status();
      if (read.ok()) return read;
    }
    if (absl::IsUnavailable(read)) read = ReadAfterOutage(shard, i, out);
    if (read.ok()) return read;
    const std::string sample = Describe(shard.first + static_cast<int64_t>(i));
    if (absl::IsUnavailable(read)) return Unavailable(sample, ": ", read.message());
    return DataLoss(sample, ": ", read.message(), Explanation(shard));
  }

  static absl::Status ReadFrom(const File& file, const Shard& shard, size_t i, uint8_t* out) {
    return ReadSample(file, shard.data_offset + shard.offset[i], shard.length[i], shard.crc32c[i], out);
  }

  // Opens the file anew until its server answers. The server may not know the file that was open before.
  absl::Status ReadAfterOutage(const Shard& shard, size_t i, uint8_t* out) const {
    const auto begin = std::chrono::steady_clock::now();
    while (true) {
      const absl::StatusOr<File> file = OpenOriginal(shard);
      absl::Status read = file.ok() ? ReadFrom(*file, shard, i, out) : file.status();
      const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - begin;
      if (!absl::IsUnavailable(read)) {
        if (outage_.exchange(false))
          Report(absl::StrFormat("%s can be read again after %.0f s", shard.path, waited.count()));
        return read;
      }
      if (waited.count() > options_.outage_seconds)
        return Unavailable(read.message(), ", which has not answered for ", options_.outage_seconds, " s");
      if (!outage_.exchange(true)) Report(absl::StrCat(read.message(), "; waiting for it"));
      std::this_thread::sleep_for(kLookAgain);
    }
  }

  void Report(const std::string& message) const {
    if (options_.report) options_.report(message);
  }

  // Why a sample could not be read: the state of its shard now.
  static std::string Explanation(const Shard& shard) {
    const absl::StatusOr<ShardFile> now = ShardFile::Open(shard.path);
    if (absl::IsResourceExhausted(now.status())) return "";
    if (!now.ok()) return absl::StrCat("; it was changed while it was in use: ", now.status().message());
    const std::vector<uint32_t>& crc32c = now->index().crc32c;
    if (!std::equal(crc32c.begin(), crc32c.end(), shard.crc32c.begin(), shard.crc32c.end()))
      return "; the shard was replaced by another one while it was in use";
    return "; run `deeper verify`, then restore the shard or pack it again";
  }

  const std::string index_;  // the shards' spans point into it
  const DatasetInfo info_;
  const Encoding encoding_;
  const ReadOptions options_;
  mutable std::atomic<bool> outage_ = false;  // that was reported
  std::vector<Shard> shards_;
  const int64_t files_;  // that it may have open
  mutable std::mutex opening_;
  std::unique_ptr<Stager> stager_;  // last: ends before the members that it uses
};

}  // namespace

absl::StatusOr<std::string> ReadSplitIndex(const std::string& dir, const std::string& split) {
  ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(dir));
  if (!manifest.splits.contains(split)) {
    return NotFound(dir, " has no split \"", split, "\", only ",
                    absl::StrJoin(manifest.splits, ", ",
                                  [](std::string* out, const auto& entry) { out->append(entry.first); }));
  }
  std::string index;
  const std::string text = ManifestText(manifest);
  PutPiece(split.data(), split.size(), &index);
  PutPiece(text.data(), text.size(), &index);
  const std::vector<std::string> problems = VisitShards(dir, manifest, split, [&](const ShardFile& shard) {
    const uint64_t data_offset = shard.data_offset();
    PutPiece(&data_offset, sizeof data_offset, &index);
    VisitArrays(shard.index(),
                [&](const auto& array) { PutPiece(array.data(), array.size() * sizeof(array[0]), &index); });
  });
  if (problems.empty()) return index;
  return DataLoss("the shards of split ", split, " in ", dir, " cannot be used:\n  ", Summarize(problems),
                  "\nRestore them or pack again.");
}

absl::StatusOr<std::unique_ptr<Dataset>> OpenSplit(const std::string& dir, std::string index,
                                                   const ReadOptions& options) {
  std::string_view rest = index;
  const std::span<const char> name = TakePiece<char>(&rest);
  const std::string split(name.begin(), name.end());
  ASSIGN_OR_RETURN(const Manifest manifest, ParseManifest(TakePiece<uint8_t>(&rest), dir + "/manifest.json"));
  const SplitManifest& listing = manifest.splits.at(split);
  DatasetInfo info{listing.uuid,   split,         listing.samples,  listing.channels,
                   listing.height, listing.width, manifest.classes, manifest.StatsFor(split)};
  auto dataset =
      std::make_unique<ShardDataset>(std::move(index), std::move(info), dir, listing, rest, options);
  RETURN_IF_ERROR(dataset->Check());
  if (!options.stage.dir.empty()) {
    RETURN_IF_ERROR(dataset->Stage(listing));
  }
  return dataset;
}

}  // namespace deeper
