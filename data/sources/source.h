// Sources of labelled images for packing: the interface of every input format (formats.h), and their shared
// parts.
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
  std::vector<uint8_t>
      file;  // an image file's bytes, undecoded; empty if the source has plain pixels, in `image`
  Image image;
};

// Fixed once open: the same input gives the same samples in the same order. Any number of threads may load.
class ImageSource {
 public:
  virtual ~ImageSource() = default;
  virtual int64_t size() const = 0;
  virtual int channels() const = 0;
  // The sample's name in messages and in the shard.
  virtual std::string Name(int64_t i) const = 0;
  virtual int Label(int64_t i) const = 0;
  // After an error, leave the sample out.
  virtual absl::StatusOr<SourceSample> Load(int64_t i) const = 0;

  const std::vector<std::string>& classes() const { return classes_; }
  // Likely mistakes that do not prevent packing.
  const std::vector<std::string>& warnings() const { return warnings_; }
  void Warn(std::string warning) { warnings_.push_back(std::move(warning)); }
  // Facts about the input that need no action, such as skipped hidden files.
  const std::vector<std::string>& notes() const { return notes_; }
  void Note(std::string note) { notes_.push_back(std::move(note)); }

 protected:
  explicit ImageSource(std::vector<std::string> classes) : classes_(std::move(classes)) {}

 private:
  std::vector<std::string> classes_, warnings_, notes_;
};

// Called from one thread at a time. `phase` is "index", "scan" or "write"; `done` and `total` count archives
// for "index", else samples.
using PackProgress = std::function<void(const char* phase, int64_t done, int64_t total)>;

struct SourceOptions {
  std::string input;   // a directory; some formats take a file or a pattern
  std::string output;  // a directory that is no part of the input, even if it lies inside
  std::string split;
  // The classes of the splits already packed into the output directory, or empty. The labels follow these,
  // else input/classes.txt (one name per line, in label order), else the input's own names. An error if two
  // of them disagree.
  std::vector<std::string> known_classes;
  int jobs = 0;           // threads; 0: one per core
  PackProgress progress;  // or empty
  std::string root;       // of relative paths in a list of images; empty: the folder of the list
};

using OpenSource = absl::StatusOr<std::unique_ptr<ImageSource>>(const SourceOptions& options);
OpenSource OpenFolder;  // other formats use it for unpacked inputs

// The classes named by options.known_classes or input/classes.txt; empty if neither exists.
// InvalidArgument: invalid names, or names that disagree.
absl::StatusOr<std::vector<std::string>> ListedClasses(const SourceOptions& options);

// InvalidArgument if an element of `found` is not among `classes`. The message calls the elements a `what` of
// `input`, and says that the classes come from `where`.
absl::Status CheckAreClasses(const std::string& input, const std::string& what,
                             const std::vector<std::string>& found, const std::vector<std::string>& classes,
                             const std::string& where);

// An image file: bytes of an archive, or a file of its own.
struct ImageFile {
  std::string name;
  int label = 0;
  int archive = -1;                // -1: the file `name`, relative to the input
  uint64_t offset = 0, bytes = 0;  // in the archive
};

// A source of RGB image files. archives: paths.
std::unique_ptr<ImageSource> MakeFileSource(std::string input, std::vector<std::string> archives,
                                            std::vector<ImageFile> images, std::vector<std::string> classes);

// Reports the progress of one phase from many threads.
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
