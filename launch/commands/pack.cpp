#include "data/pack/pack.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "data/sources/formats.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "trainer/monitor/progress.h"

namespace deeper {
namespace {

std::string Details() {
  std::string details = R"(Packs one split of a collection of images into HDF5 shards and manifest.json,
with a checksum per sample and per file. The same input gives the same bytes. After an interruption, run the
same command again; it keeps the shards that are complete and sound. Formats of the input:
)";
  for (const SourceFormat& format : SourceFormats()) {
    const std::string help = absl::StrReplaceAll(format.help, {{"\n", "\n" + std::string(23, ' ')}});
    absl::StrAppendFormat(&details, "  --format=%-10s  %s\n", format.name, help);
  }
  return details +
         "If the input has no class names, pack reads them from its file classes.txt, one per line.";
}

CommandText Text() {
  static const std::string details = Details();
  return {
      .name = "pack",
      .summary = "packs labelled images into checksummed shards",
      .operands = "",
      .details = details.c_str(),
      .examples =
          R"(deeper pack --format=idx --input=/data/fashion-mnist --output=datasets/fashion-mnist
deeper pack --format=folder --input=photos/train --output=datasets/photos --encoding=jpeg --resize=256
deeper pack --format=idx --input=/data/fashion-mnist --output=datasets/tuning --holdout=5000
deeper pack --format=imagenet --input=tars --output=datasets/imagenet --encoding=jpeg --strict
deeper pack --format=webdataset '--input=wds/train-{000..009}.tar' --output=datasets/wds --encoding=jpeg
deeper pack --format=csv --input=labels.csv --root=photos --output=datasets/photos)",
  };
}

// Progress of a phase, with its rate and the remaining time: on a terminal one line that is redrawn,
// elsewhere one line per minute.
class PackProgressLine {
 public:
  void operator()(const std::string& phase, int64_t done, int64_t total) {
    const auto now = Clock::now();
    const std::chrono::duration<double> interval(terminal_ ? 0.1 : 60);
    if (phase != phase_) {
      phase_ = phase;
      rate_ = 0;
      last_ = now;
      last_done_ = 0;
    }
    const std::chrono::duration<double> passed = now - last_;
    if (passed < interval && (done < total || !terminal_)) return;
    // Smoothed over some seconds, because shards of an earlier run are skipped fast.
    const double rate = static_cast<double>(done - last_done_) / passed.count();
    rate_ += (rate - rate_) * (rate_ == 0 ? 1 : 1 - std::exp(-passed.count() / 5));
    last_ = now;
    last_done_ = done;
    Print(done, total);
  }
  void End() const {
    if (terminal_ && !phase_.empty()) std::fputc('\n', stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int64_t kBar = 20;

  void Print(int64_t done, int64_t total) const {
    const auto filled = static_cast<size_t>(kBar * done / std::max<int64_t>(1, total));
    std::fprintf(stderr, "%s%-5s %3ld%% [%s%s]  %ld/%ld  %6.0f/s  ETA %s%s", terminal_ ? "\r" : "",
                 phase_.c_str(), 100 * done / std::max<int64_t>(1, total), std::string(filled, '#').c_str(),
                 std::string(kBar - filled, '-').c_str(), done, total, rate_,
                 FormatDuration(static_cast<double>(total - done) / rate_).c_str(),
                 terminal_ ? "\x1b[K" : "\n");
  }

  bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::string phase_;
  double rate_ = 0;         // per second
  Clock::time_point last_;  // of the last line
  int64_t last_done_ = 0;
};

class PackCommand final : public Command {
  static constexpr char kHoldoutSplit[] = "holdout";

 public:
  PackCommand() : Command(Text()) {}

  std::vector<FlagGroup> Flags() override {
    PackOptions& o = options_;
    constexpr double kAny = Range::kAny;
    return {{"Files",
             {{"format", OneOf(&o.format, FormatNames()), "format of the input"},
              {"input", &o.input, "directory to read, or what the format says", {}, "", true},
              {"root", &o.root,
               "folder that the relative paths of --format=csv begin at; empty: that of the CSV file"},
              {"output", &o.output, "directory to write; several splits may share it"},
              {"split", &o.split, "name of this split: train, val, ..."},
              {"holdout", &o.holdout,
               "images of this split to pack as split holdout instead, the same share of every class",
               Range(0, 1e9, "none"), "images"},
              {"holdout_seed", &o.holdout_seed, "seed of the choice of the held-out images"}}},
            {"Shards",
             {{"encoding", OneOf(&o.encoding), "how samples are stored"},
              {"resize", &o.resize, "new length of the short side", Range(0, kAny, "unchanged"), "pixels"},
              {"quality", &o.quality, "JPEG quality of converted and resized images", Range(1, 100)},
              {"shuffle", &shuffle_, "seed of a random order of the samples; 0: the order of the input",
               Range(0, kAny, "1 for ImageNet's train, else 0", -1)},
              {"shard_size", &o.shard_size, "size of the samples per shard", Range(1), "bytes"},
              {"jobs", &o.jobs, "threads", Range(0, kAny, "one per core")},
              {"allow_bad", &o.allow_bad, "most damaged images to leave out and list in the manifest",
               Range(0), "images"},
              {"strict", &o.strict, "treat warnings as errors"}}}};
  }

  absl::Status Run(const Invocation&) override {
    if (options_.format.empty() || options_.input.empty() || options_.output.empty())
      return InvalidArgument("needs --format=FORMAT, --input=DIR and --output=DIR");
    if (!options_.root.empty() && options_.format != "csv")
      return InvalidArgument("--root applies to --format=csv only");
    if (options_.holdout > 0 && options_.split == kHoldoutSplit)
      return InvalidArgument("--holdout makes the split ", kHoldoutSplit, ": give the rest another --split");
    if (options_.holdout == 0 && options_.holdout_seed != PackOptions().holdout_seed)
      return InvalidArgument("--holdout_seed needs --holdout");
    if (options_.encoding != Encoding::kJpeg && options_.quality != PackOptions().quality)
      return InvalidArgument("--quality needs --encoding=jpeg");
    ASSIGN_OR_RETURN(const SourceFormat* format, FindFormat(options_.format));
    const bool sorted_by_class = format->train_sorted_by_class && options_.split == "train";
    options_.shuffle = static_cast<uint64_t>(shuffle_ >= 0 ? shuffle_ : sorted_by_class ? 1 : 0);
    RETURN_IF_ERROR(PackAndReport());
    if (options_.holdout == 0) return absl::OkStatus();
    options_.input_split = std::exchange(options_.split, kHoldoutSplit);
    options_.part = SourcePart::kHoldout;
    return PackAndReport();
  }

 private:
  absl::Status PackAndReport() const {
    PackProgressLine line;
    const absl::StatusOr<PackSummary> summary =
        Pack(options_, [&](const char* phase, int64_t done, int64_t total) { line(phase, done, total); });
    line.End();
    if (!summary.ok()) return WithExitCode(summary.status(), ExitCode::kData);
    Report(*summary);
    return absl::OkStatus();
  }

  void Report(const PackSummary& s) const {
    for (const std::string& warning : s.warnings)
      std::fprintf(stderr, "deeper pack: warning: %s\n", warning.c_str());
    for (const std::string& note : s.notes) std::fprintf(stderr, "deeper pack: note: %s\n", note.c_str());
    const SplitManifest& split = s.split;
    for (const Reject& reject : split.rejects)
      std::fprintf(stderr, "deeper pack: left out %s: %s\n", reject.name.c_str(), reject.reason.c_str());
    std::printf("%s: split %s, %ld images of %ld classes\n", options_.output.c_str(), options_.split.c_str(),
                split.samples, s.classes);
    std::printf("  shards  %zu, %ld of them kept from an earlier run\n", split.shards.size(), s.kept_shards);
    std::printf("  images  %ld re-encoded as JPEG, %zu left out\n", s.reencoded, split.rejects.size());
    std::printf("  mean    %s of pixels in 0..1\n", absl::StrJoin(split.stats.mean, ", ").c_str());
    std::printf("  std     %s\n", absl::StrJoin(split.stats.stddev, ", ").c_str());
  }

  PackOptions options_;
  int64_t shuffle_ = -1;
};

}  // namespace

std::unique_ptr<Command> MakePack() {
  return std::make_unique<PackCommand>();
}

}  // namespace deeper
