#include "data/pack.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "launch/command.h"
#include "trainer/exit_code.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "pack",
    .summary = "turns labelled images into shards that train fast",
    .operands = "",
    .details =
        "Packs one split of a collection of images into HDF5 shards and manifest.json, every sample and file "
        "with\n"
        "its checksum. The same input gives the same bytes. Interrupted, run it again: sound shards are "
        "kept.\n"
        "  --format=idx     the files of MNIST and its like, gzipped or not; split val or test: the t10k "
        "ones\n"
        "  --format=folder  one folder a class, of JPEG and PNG files; their names are the classes'\n"
        "Class names, if the input has none, come from a file classes.txt in it, one a line.",
    .examples =
        "deeper pack --format=idx --input=/usr/share/datasets/fashion-mnist --output=datasets/fashion-mnist\n"
        "deeper pack --format=folder --input=photos/train --output=datasets/photos --encoding=jpeg "
        "--resize=256",
};

// Percents done, on a line of the terminal that is written over and over.
class PercentLine {
 public:
  void operator()(const char* phase, int64_t done, int64_t total) {
    const int64_t percent = 100 * done / std::max<int64_t>(1, total);
    if (!terminal_ || percent == shown_) return;
    shown_ = percent;
    std::fprintf(stderr, "\r%-5s %3ld %% of %ld images", phase, percent, total);
  }
  void End() const {
    if (shown_ >= 0) std::fputc('\n', stderr);
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) == 1;
  int64_t shown_ = -1;
};

class PackCommand final : public Command {
 public:
  PackCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    PackOptions& o = options_;
    return {
        {"Files",
         {{"format", &format_, "idx | folder"},
          {"input", &o.input, "directory to read"},
          {"output", &o.output, "directory to write; several splits may share one"},
          {"split", &o.split, "name of this part of the data: train, val, ..."}}},
        {"Shards",
         {{"encoding", &encoding_, "raw: pixels | jpeg: JPEG files, as they are where possible"},
          {"resize", &o.resize, "length of the short side; 0: as it is"},
          {"shard_size", &o.shard_size, "bytes of samples in a shard"},
          {"jobs", &o.jobs, "threads; 0: one a core"},
          {"allow_bad", &o.allow_bad, "damaged images that may be left out; they are listed in the manifest"},
          {"strict", &o.strict, "warnings are errors"}}}};
  }

  absl::Status Run(const Invocation&) override {
    if (absl::Status status = CheckFlags(); !status.ok()) return status;
    PercentLine line;
    const absl::StatusOr<PackSummary> summary =
        Pack(options_, [&](const char* phase, int64_t done, int64_t total) { line(phase, done, total); });
    line.End();
    if (!summary.ok()) return WithExitCode(summary.status(), ExitCode::kData);
    Report(*summary);
    return absl::OkStatus();
  }

 private:
  absl::Status CheckFlags() {
    if (format_ != "idx" && format_ != "folder")
      return absl::InvalidArgumentError(absl::StrCat("--format=", format_, ": must be idx or folder"));
    if (options_.input.empty() || options_.output.empty())
      return absl::InvalidArgumentError("needs --input=DIR and --output=DIR");
    if (options_.resize < 0 || options_.jobs < 0 || options_.allow_bad < 0 || options_.shard_size < 1)
      return absl::InvalidArgumentError(
          "--resize, --jobs and --allow_bad cannot be negative, --shard_size must be positive");
    const absl::StatusOr<Encoding> encoding = ParseEncoding(encoding_);
    if (!encoding.ok())
      return absl::InvalidArgumentError(absl::StrCat("--encoding: ", encoding.status().message()));
    options_.encoding = *encoding;
    options_.format = format_ == "idx" ? PackFormat::kIdx : PackFormat::kFolder;
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
    std::printf("mean %s, standard deviation %s of pixels in 0..1\n",
                absl::StrJoin(split.stats.mean, ",").c_str(), absl::StrJoin(split.stats.stddev, ",").c_str());
  }

  PackOptions options_;
  std::string format_, encoding_ = "raw";
};

}  // namespace

std::unique_ptr<Command> MakePack() {
  return std::make_unique<PackCommand>();
}

}  // namespace deeper
