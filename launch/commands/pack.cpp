#include "data/pack/pack.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
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
  std::string details =
      "Packs one split of a collection of images into HDF5 shards and manifest.json, every sample and file "
      "with\n"
      "its checksum. The same input gives the same bytes. Interrupted, run it again: sound shards are "
      "kept.\n";
  for (const SourceFormat& format : SourceFormats()) {
    const std::string help = absl::StrReplaceAll(format.help, {{"\n", "\n" + std::string(21, ' ')}});
    absl::StrAppendFormat(&details, "  --format=%-8s  %s\n", format.name, help);
  }
  return details + "Class names, if the input has none, come from a file classes.txt in it, one a line.";
}

CommandText Text() {
  static const std::string details = Details();
  return {
      .name = "pack",
      .summary = "turns labelled images into shards that train fast",
      .operands = "",
      .details = details.c_str(),
      .examples =
          "deeper pack --format=idx --input=/usr/share/datasets/fashion-mnist "
          "--output=datasets/fashion-mnist\n"
          "deeper pack --format=folder --input=photos/train --output=datasets/photos --encoding=jpeg "
          "--resize=256\n"
          "deeper pack --format=imagenet --input=downloads --output=datasets/imagenet --split=train "
          "--encoding=jpeg "
          "--strict",
  };
}

// What is done of a phase, with its rate and the time left: on a line of the terminal that is written over
// and over, else as a line a minute.
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
    // Smoothed over some seconds: what is kept from an earlier run goes by in no time.
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
    std::fprintf(stderr, "%s%-5s %3ld%% [%s%s]  %ld/%ld  %.0f a second  ETA %s%s", terminal_ ? "\r" : "",
                 phase_.c_str(), 100 * done / std::max<int64_t>(1, total), std::string(filled, '#').c_str(),
                 std::string(kBar - filled, '-').c_str(), done, total, rate_,
                 FormatDuration(static_cast<double>(total - done) / rate_).c_str(),
                 terminal_ ? "\x1b[K" : "\n");
  }

  bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::string phase_;
  double rate_ = 0;         // a second
  Clock::time_point last_;  // print
  int64_t last_done_ = 0;
};

class PackCommand final : public Command {
 public:
  PackCommand() : Command(Text()) {}

  std::vector<FlagGroup> Flags() override {
    PackOptions& o = options_;
    return {
        {"Files",
         {{"format", &o.format, FormatNames()},
          {"input", &o.input, "directory to read"},
          {"output", &o.output, "directory to write; several splits may share one"},
          {"split", &o.split, "name of this part of the data: train, val, ..."}}},
        {"Shards",
         {{"encoding", &encoding_, "raw: pixels | jpeg: JPEG files, as they are where possible"},
          {"resize", &o.resize, "length of the short side; 0: as it is"},
          {"quality", &o.quality, "of JPEGs made of PNGs and resized images, 1 to 100"},
          {"shuffle", &shuffle_,
           "seed of a random order of the samples; 0: the input's order; -1: 1 for ImageNet's train, else 0"},
          {"shard_size", &o.shard_size, "bytes of samples in a shard"},
          {"jobs", &o.jobs, "threads; 0: one a core"},
          {"allow_bad", &o.allow_bad, "damaged images that may be left out; they are listed in the manifest"},
          {"strict", &o.strict, "warnings are errors"}}}};
  }

  absl::Status Run(const Invocation&) override {
    RETURN_IF_ERROR(CheckFlags());
    PackProgressLine line;
    const absl::StatusOr<PackSummary> summary =
        Pack(options_, [&](const char* phase, int64_t done, int64_t total) { line(phase, done, total); });
    line.End();
    if (!summary.ok()) return WithExitCode(summary.status(), ExitCode::kData);
    Report(*summary);
    return absl::OkStatus();
  }

 private:
  absl::Status CheckFlags() {
    ASSIGN_OR_RETURN(const SourceFormat* format, FindFormat(options_.format));
    if (options_.input.empty() || options_.output.empty())
      return absl::InvalidArgumentError("needs --input=DIR and --output=DIR");
    if (options_.resize < 0 || options_.jobs < 0 || options_.allow_bad < 0 || options_.shard_size < 1)
      return absl::InvalidArgumentError(
          "--resize, --jobs and --allow_bad cannot be negative, --shard_size must be positive");
    if (options_.quality < 1 || options_.quality > 100)
      return absl::InvalidArgumentError(absl::StrCat("--quality=", options_.quality, ": must be 1 to 100"));
    if (shuffle_ < -1)
      return absl::InvalidArgumentError(absl::StrCat("--shuffle=", shuffle_, ": must be -1 or more"));
    const absl::StatusOr<Encoding> encoding = ParseEncoding(encoding_);
    if (!encoding.ok())
      return absl::InvalidArgumentError(absl::StrCat("--encoding: ", encoding.status().message()));
    options_.encoding = *encoding;
    const bool sorted_by_class = format->train_sorted_by_class && options_.split == "train";
    options_.shuffle = static_cast<uint64_t>(shuffle_ >= 0 ? shuffle_ : sorted_by_class ? 1 : 0);
    return absl::OkStatus();
  }

  void Report(const PackSummary& s) const {
    for (const std::string& warning : s.warnings)
      std::fprintf(stderr, "deeper pack: warning: %s\n", warning.c_str());
    const SplitManifest& split = s.split;
    for (const Reject& reject : split.rejects)
      std::fprintf(stderr, "deeper pack: left out %s: %s\n", reject.name.c_str(), reject.reason.c_str());
    std::printf(
        "%s: split %s, %ld images of %ld classes in %zu shards, %ld of them kept from an earlier run\n",
        options_.output.c_str(), options_.split.c_str(), split.samples, s.classes, split.shards.size(),
        s.kept_shards);
    std::printf("%ld re-encoded as JPEG, %zu left out\n", s.reencoded, split.rejects.size());
    std::printf("mean %s, standard deviation %s of pixels in 0..1\n",
                absl::StrJoin(split.stats.mean, ",").c_str(), absl::StrJoin(split.stats.stddev, ",").c_str());
  }

  PackOptions options_;
  std::string encoding_ = "raw";
  int64_t shuffle_ = -1;
};

}  // namespace

std::unique_ptr<Command> MakePack() {
  return std::make_unique<PackCommand>();
}

}  // namespace deeper
