#include "data/pack/pack.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <numeric>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "data/io/directory_lock.h"
#include "data/pack/encode.h"
#include "data/pack/plan.h"
#include "data/shards/shard_file.h"
#include "data/shards/shard_writer.h"
#include "data/sources/formats.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

absl::Status CheckWarnings(const PackOptions& options, const ImageSource& source) {
  if (!options.strict || source.warnings().empty()) return absl::OkStatus();
  return InvalidArgument("--strict: ", absl::StrJoin(source.warnings(), "; "));
}

absl::StatusOr<std::unique_ptr<ImageSource>> OpenInput(const PackOptions& options,
                                                       const std::vector<std::string>& known_classes,
                                                       const PackProgress& progress) {
  ASSIGN_OR_RETURN(const SourceFormat* format, FindFormat(options.format));
  const std::string& split = options.input_split.empty() ? options.split : options.input_split;
  ASSIGN_OR_RETURN(std::unique_ptr<ImageSource> source,
                   format->open({options.input, options.output, split, known_classes, options.jobs, progress,
                                 options.root}));
  if (options.holdout > 0) {
    absl::StatusOr<std::unique_ptr<ImageSource>> part =
        TakePart(std::move(source), options.part, options.holdout, options.holdout_seed);
    if (!part.ok())
      return WithExitCode(InvalidArgument("--holdout=", options.holdout, ": ", part.status().message()),
                          ExitCode::kUsage);
    source = *std::move(part);
  }
  RETURN_IF_ERROR(CheckClassNames(source->classes()));
  RETURN_IF_ERROR(CheckWarnings(options, *source));
  return source;
}

// A class may lose all its images to options.allow_bad.
void WarnOfLostClasses(const PackPlan& plan, ImageSource* source) {
  std::set<int> kept, lost;
  for (const PlannedShard& shard : plan.shards)
    kept.insert(shard.index.label.begin(), shard.index.label.end());
  for (int64_t i = 0; i < source->size(); ++i)
    if (!kept.contains(source->Label(i))) lost.insert(source->Label(i));
  if (lost.empty()) return;
  source->Warn(absl::StrCat("classes without images, because all of theirs are left out: ", lost.size(),
                            "; the first is ", source->classes()[static_cast<size_t>(*lost.begin())]));
}

// Refuses shards of this split that belong to another packing; removes unfinished ones of this packing.
absl::Status PrepareOutput(const PackOptions& options, const PackPlan& plan) {
  std::set<std::string> ours;
  for (const ShardEntry& shard : plan.manifest.shards) ours.insert(shard.file);
  std::error_code error;
  for (auto it = fs::directory_iterator(options.output, error); !error && it != fs::directory_iterator();
       it.increment(error)) {
    const std::string path = it->path(), name = it->path().filename();
    std::error_code not_removed;
    if (absl::EndsWith(name, kTemporarySuffix) && IsShardFileName(fs::path(name).stem(), options.split))
      fs::remove(path, not_removed);
    if (not_removed) return IoError("remove", path, not_removed.value());
    if (!IsShardFileName(name, options.split)) continue;
    absl::StatusOr<ShardFile> shard = ShardFile::Open(path);
    if (ours.contains(name) && (!shard.ok() || shard->header().uuid == plan.manifest.uuid)) continue;
    return FailedPrecondition(path, " is from another packing of split ", options.split,
                              "; delete that split's shards, or use another output directory");
  }
  return error ? IoError("list", options.output, error.value()) : absl::OkStatus();
}

// Whether `path` already is the complete planned shard.
bool IsFinished(const std::string& path, const PlannedShard& shard) {
  absl::StatusOr<ShardFile> found = ShardFile::Open(path);
  return found.ok() && found->header() == shard.header &&
         HashIndex(found->index()) == HashIndex(shard.index) && found->CheckSamples().empty();
}

// `lock`: of the output directory. Another machine may take it over while this one makes no progress.
absl::Status WriteShard(const PackOptions& options, const ImageSource& source, const PlannedShard& shard,
                        const std::string& path, const DirectoryLock& lock, ProgressCounter* counter) {
  RETURN_IF_ERROR(lock.Check());
  ASSIGN_OR_RETURN(ShardWriter writer, ShardWriter::Create(path, shard.header, shard.index));
  // In the input's order, since random reads from a hard disk are slow.
  std::vector<int64_t> order(shard.sources.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return shard.sources[static_cast<size_t>(a)] < shard.sources[static_cast<size_t>(b)];
  });
  absl::Status written = RunJobs(options.jobs, shard.header.samples, [&](int64_t k) {
    const int64_t i = order[static_cast<size_t>(k)];
    const int64_t from = shard.sources[static_cast<size_t>(i)];
    absl::StatusOr<StoredSample> stored = EncodeSample(source, from, options, /*decode=*/false);
    if (!stored.ok()) {
      return DataLoss(source.Name(from), " could be read before, but not now: ", stored.status().message());
    }
    RETURN_IF_ERROR(writer.Put(i, stored->bytes));
    counter->Add(1);
    return absl::OkStatus();
  });
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(lock.Check());
  return writer.Commit();
}

absl::StatusOr<PackSummary> WriteShards(const PackOptions& options, const ImageSource& source,
                                        const PackPlan& plan, const DirectoryLock& lock,
                                        const PackProgress& progress, Manifest manifest) {
  PackSummary summary;
  SplitManifest& split = manifest.splits[options.split];
  manifest.classes = source.classes();
  split = plan.manifest;
  ProgressCounter counter(progress, "write", split.samples);
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    const PlannedShard& shard = plan.shards[i];
    const std::string path = absl::StrCat(options.output, "/", split.shards[i].file);
    if (IsFinished(path, shard)) {
      ++summary.kept_shards;
      counter.Add(shard.header.samples);
    } else if (absl::Status written = WriteShard(options, source, shard, path, lock, &counter);
               !written.ok()) {
      return written;
    }
    ASSIGN_OR_RETURN(Hash128 hash, Xxh3OfFile(path));
    split.shards[i].bytes = fs::file_size(path);
    split.shards[i].xxh3 = hash.Hex();
  }
  RETURN_IF_ERROR(lock.Check());
  RETURN_IF_ERROR(WriteManifest(options.output, manifest));
  summary.split = split;
  summary.classes = static_cast<int64_t>(manifest.classes.size());
  summary.reencoded = plan.reencoded;
  summary.warnings = source.warnings();
  summary.notes = plan.notes;
  return summary;
}

}  // namespace

absl::StatusOr<PackSummary> Pack(const PackOptions& options, const PackProgress& progress) {
  const auto allowed = [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_'; };
  if (options.split.empty() || !std::ranges::all_of(options.split, allowed))
    return WithExitCode(InvalidArgument("--split=", options.split, ": must consist of letters, digits and _"),
                        ExitCode::kUsage);
  RETURN_IF_ERROR(CreateDirectories(options.output));
  if (access(options.output.c_str(), W_OK) != 0) return IoError("write into", options.output, errno);
  ASSIGN_OR_RETURN(const DirectoryLock lock, DirectoryLock::Take(options.output));
  absl::StatusOr<Manifest> manifest = ReadManifest(options.output);
  if (absl::IsNotFound(manifest.status())) manifest = Manifest();
  RETURN_IF_ERROR(manifest.status());
  // Packing a split again replaces the class names, unless another split uses them.
  manifest->splits.erase(options.split);
  if (manifest->splits.empty()) manifest->classes.clear();

  ASSIGN_OR_RETURN(std::unique_ptr<ImageSource> source, OpenInput(options, manifest->classes, progress));
  ASSIGN_OR_RETURN(PackPlan plan, PlanPacking(options, *source, progress));
  WarnOfLostClasses(plan, source.get());
  RETURN_IF_ERROR(CheckWarnings(options, *source));
  RETURN_IF_ERROR(PrepareOutput(options, plan));
  return WriteShards(options, *source, plan, lock, progress, *std::move(manifest));
}

}  // namespace deeper
