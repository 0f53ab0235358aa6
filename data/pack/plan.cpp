#include "data/pack/plan.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/io/checksum.h"
#include "data/load/sample_order.h"
#include "data/pack/encode.h"
#include "kernels/base/jobs.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr size_t kRejectsShown = 10;

// What the first pass keeps of a sample; the second pass makes its bytes again.
struct Scanned {
  int64_t source = 0;
  Hash128 hash;
  uint32_t length = 0, crc32c = 0;
  uint16_t height = 0, width = 0, flags = 0;
};

struct Scan {
  std::vector<Scanned> samples;  // in the source's order
  std::vector<Reject> rejects;
  PixelSums sums;
  std::map<int64_t, std::string> notes;  // of the source's samples that have one
};

absl::StatusOr<Scan> ScanSource(const PackOptions& options, const ImageSource& source,
                                const PackProgress& progress) {
  std::vector<absl::StatusOr<Scanned>> scanned(static_cast<size_t>(source.size()));
  Scan scan;
  std::mutex mutex;  // guards scan.sums and scan.notes
  ProgressCounter counter(progress, "scan", source.size());
  RETURN_IF_ERROR(RunJobs(options.jobs, source.size(), [&](int64_t i) {
    absl::StatusOr<StoredSample> stored = EncodeSample(source, i, options, /*decode=*/true);
    absl::StatusOr<Scanned>& slot = scanned[static_cast<size_t>(i)];
    if (stored.ok()) {
      const std::vector<uint8_t>& bytes = stored->bytes;
      slot = Scanned{i,
                     Xxh3(bytes.data(), bytes.size()),
                     static_cast<uint32_t>(bytes.size()),
                     Crc32c(bytes.data(), bytes.size()),
                     static_cast<uint16_t>(stored->height),
                     static_cast<uint16_t>(stored->width),
                     stored->flags};
      std::scoped_lock lock(mutex);
      scan.sums.Add(stored->sums);
      if (!stored->note.empty()) scan.notes[i] = stored->note;
    } else {
      slot = stored.status();
    }
    counter.Add(1);
    return absl::OkStatus();
  }));
  for (int64_t i = 0; i < source.size(); ++i) {
    const absl::StatusOr<Scanned>& slot = scanned[static_cast<size_t>(i)];
    if (slot.ok()) {
      scan.samples.push_back(*slot);
    } else {
      scan.rejects.push_back({source.Name(i), std::string(slot.status().message())});
    }
  }
  return scan;
}

absl::Status CheckRejects(const std::vector<Reject>& rejects, const PackOptions& options) {
  if (static_cast<int64_t>(rejects.size()) <= options.allow_bad) return absl::OkStatus();
  const size_t shown = std::min(rejects.size(), kRejectsShown);
  std::string list = absl::StrJoin(
      rejects.begin(), rejects.begin() + static_cast<ptrdiff_t>(shown), "",
      [](std::string* out, const Reject& r) { absl::StrAppend(out, "\n  ", r.name, ": ", r.reason); });
  if (shown < rejects.size()) absl::StrAppend(&list, "\n  and ", rejects.size() - shown, " more");
  return DataLoss(rejects.size(), " bad images in ", options.input, ", but --allow_bad=", options.allow_bad,
                  ":", list, "\nRemove or replace them, or raise --allow_bad.");
}

// Hash of everything that a model could learn from; the division into shards does not count.
std::string Uuid(const PackOptions& options, const ImageSource& source, const std::vector<Scanned>& samples) {
  Xxh3Stream hash;
  const auto add = [&](const std::string& text) { hash.Add(text.c_str(), text.size() + 1); };
  add(absl::StrCat("deeper-shard-1 ", options.split, " ", NameOf(options.encoding), " ", source.channels()));
  for (const std::string& name : source.classes()) add(name);
  for (const Scanned& s : samples) {
    add(source.Name(s.source));
    add(absl::StrCat(source.Label(s.source), " ", s.height, " ", s.width, " ", s.hash.Hex()));
  }
  return hash.Finish().Hex();
}

// A random order for every seed but 0, different from that of any training epoch with this seed.
void Shuffle(uint64_t seed, std::vector<Scanned>* samples) {
  constexpr uint32_t kNoEpoch = 0xffffffff;
  if (seed == 0) return;
  const SampleOrder order(OrderKind::kFull, static_cast<int64_t>(samples->size()), seed, kNoEpoch);
  std::vector<Scanned> shuffled;
  for (size_t i = 0; i < samples->size(); ++i)
    shuffled.push_back((*samples)[static_cast<size_t>(order.At(static_cast<int64_t>(i)))]);
  *samples = std::move(shuffled);
}

// Takes samples from `*next` on until the shard is full, at least one.
PlannedShard FillShard(const PackOptions& options, const ImageSource& source,
                       const std::vector<Scanned>& samples, size_t* next) {
  PlannedShard shard;
  ShardIndex& index = shard.index;
  std::vector<std::string> names;
  uint64_t offset = 0;
  for (; *next < samples.size(); ++*next) {
    const Scanned& s = samples[*next];
    const uint64_t end = offset + PaddedBytes(s.length);
    if (offset > 0 && end > static_cast<uint64_t>(options.shard_size)) break;
    index.offset.push_back(offset);
    index.length.push_back(s.length);
    index.label.push_back(static_cast<uint16_t>(source.Label(s.source)));
    index.crc32c.push_back(s.crc32c);
    index.width.push_back(s.width);
    index.height.push_back(s.height);
    index.flags.push_back(s.flags);
    names.push_back(source.Name(s.source));
    shard.sources.push_back(s.source);
    offset = end;
  }
  index.names = FixedStrings(names);
  index.classes = FixedStrings(source.classes());
  return shard;
}

}  // namespace

absl::StatusOr<PackPlan> PlanPacking(const PackOptions& options, const ImageSource& source,
                                     const PackProgress& progress) {
  ASSIGN_OR_RETURN(Scan scan, ScanSource(options, source, progress));
  RETURN_IF_ERROR(CheckRejects(scan.rejects, options));
  if (scan.samples.empty()) return InvalidArgument("no images in ", options.input);
  Shuffle(options.shuffle, &scan.samples);
  PackPlan plan;
  plan.notes = source.notes();
  if (!scan.notes.empty()) {
    const auto& [first, note] = *scan.notes.begin();
    plan.notes.push_back(absl::StrCat(scan.notes.size(),
                                      " images are irregular but have all their pixels, the first is ",
                                      source.Name(first), ": ", note));
  }
  SplitManifest& manifest = plan.manifest;
  manifest.uuid = Uuid(options, source, scan.samples);
  manifest.encoding = options.encoding;
  manifest.channels = source.channels();
  manifest.samples = static_cast<int64_t>(scan.samples.size());
  manifest.stats = scan.sums.Stats(source.channels());
  manifest.rejects = scan.rejects;
  manifest.height = scan.samples[0].height;
  manifest.width = scan.samples[0].width;
  for (const Scanned& s : scan.samples) {
    if (s.height != manifest.height || s.width != manifest.width) manifest.height = manifest.width = 0;
    if (s.flags & kReencoded) ++plan.reencoded;
  }
  for (size_t next = 0; next < scan.samples.size();)
    plan.shards.push_back(FillShard(options, source, scan.samples, &next));
  const int64_t count = std::ssize(plan.shards);
  for (const PlannedShard& shard : plan.shards) {
    manifest.shards.push_back(
        {ShardFileName(options.split, std::ssize(manifest.shards), count), 0, "", std::ssize(shard.sources)});
  }
  for (size_t i = 0; i < plan.shards.size(); ++i)
    plan.shards[i].header = HeaderOf(manifest, options.split, i);
  return plan;
}

}  // namespace deeper
