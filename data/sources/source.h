// Sources of labelled images, for packing: what every format of an input (formats.h) provides, and what the
// formats share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/load/dataset.h"

namespace deeper {

struct SourceSample {
  std::vector<uint8_t> file;  // an image file's bytes, undecoded; empty if the source has plain pixels:
  Image image;
};

// Fixed once open: the same input gives the same samples in the same order. Any number of threads may load.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  virtual int64_t size() const = 0;
  virtual int channels() const = 0;
  // What the sample is called in messages and in the shard.
  virtual std::string Name(int64_t i) const = 0;
  virtual int Label(int64_t i) const = 0;
  // An error is a reason to leave the sample out.
  virtual absl::StatusOr<SourceSample> Load(int64_t i) const = 0;

  const std::vector<std::string>& classes() const { return classes_; }
  // Things that look like mistakes but do not prevent packing.
  const std::vector<std::string>& warnings() const { return warnings_; }
  void Warn(std::string warning) { warnings_.push_back(std::move(warning)); }
  // Things that are as they should be, but that someone may wonder about.
  const std::vector<std::string>& notes() const { return notes_; }
  void Note(std::string note) { notes_.push_back(std::move(note)); }

 protected:
  explicit ImageSource(std::vector<std::string> classes) : classes_(std::move(classes)) {}

 private:
  std::vector<std::string> classes_, warnings_, notes_;
};

// Called from one thread at a time: `phase` "index", "scan" or "write", `done` of `total` archives or, in the
// latter two, samples.
using PackProgress = std::function<void(const char* phase, int64_t done, int64_t total)>;

struct SourceOptions {
  std::string input;   // a directory
  std::string output;  // a directory that is no part of the input, even if it lies inside
  std::string split;
  // Those of the splits already packed next to this one, or empty. They, else input/classes.txt (one name a
  // line, in label order), else what the input itself says, give the labels their meaning; two of them that
  // disagree are an error.
  std::vector<std::string> known_classes;
  int jobs = 0;           // threads; 0: one per core
  PackProgress progress;  // or empty
};

using OpenSource = absl::StatusOr<std::unique_ptr<ImageSource>>(const SourceOptions& options);
OpenSource OpenFolder;  // also what other formats' inputs may be, once unpacked

// The classes named by options.known_classes or input/classes.txt; empty if there are neither.
// InvalidArgument: names that cannot be meant, or that do not agree.
absl::StatusOr<std::vector<std::string>> ListedClasses(const SourceOptions& options);

// InvalidArgument, naming the first of `found`, each a `what` of `input`, that is none of `classes`, which
// come from `where`.
absl::Status CheckAreClasses(const std::string& input, const std::string& what,
                             const std::vector<std::string>& found, const std::vector<std::string>& classes,
                             const std::string& where);

// An image file: bytes of an archive, or a file of its own.
struct ImageFile {
  std::string name;
  int label = 0;
  int archive = -1;                // -1: the file input/name
  uint64_t offset = 0, bytes = 0;  // in the archive
};

// RGB images in files. archives: paths.
std::unique_ptr<ImageSource> MakeFileSource(std::string input, std::vector<std::string> archives,
                                            std::vector<ImageFile> images, std::vector<std::string> classes);

// Reports one phase's progress from many threads.
class ProgressCounter {
 public:
  ProgressCounter(const PackProgress& progress, const char* phase, int64_t total)
      : progress_(progress), phase_(phase), total_(total) {}
  void Add(int64_t samples) {
    std::scoped_lock lock(mutex_);
    done_ += samples;
    if (progress_) progress_(phase_, done_, total_);
  }

 private:
  const PackProgress& progress_;
  const char* phase_;
  int64_t total_, done_ = 0;
  std::mutex mutex_;
};

}  // namespace deeper
