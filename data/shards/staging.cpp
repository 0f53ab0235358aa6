#include "data/shards/staging.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/io/atomic_file.h"
#include "data/io/checksum.h"
#include "data/io/directory_lock.h"
#include "kernels/base/clock.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunk = size_t{4} << 20;
constexpr std::chrono::milliseconds kLookAgain{500};  // poll interval for another process' copies

// Removes files of a killed process. Call under the lock, since another process may be writing them.
void RemoveLeftovers(const std::string& directory) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (absl::EndsWith(entry.path().native(), kTemporarySuffix)) fs::remove(entry.path(), ignored);
  }
}

class MachineStager final : public Stager {
 public:
  // Uses its own subdirectory, so that other files in options.dir stay.
  MachineStager(StageOptions options, std::vector<StagedFile> files, std::function<void(size_t, File)> ready)
      : options_(std::move(options)),
        directory_(options_.dir + "/deeper-shards"),
        files_(std::move(files)),
        ready_(std::move(ready)),
        adopted_(files_.size()) {}

  absl::Status Begin() {
    RETURN_IF_ERROR(CreateDirectories(directory_));
    RETURN_IF_ERROR(TryLock());
    thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
    return absl::OkStatus();
  }

 private:
  // Also OK if another process has the lock.
  absl::Status TryLock() {
    absl::StatusOr<DirectoryLock> lock = DirectoryLock::Take(directory_);
    if (absl::IsFailedPrecondition(lock.status())) return absl::OkStatus();
    RETURN_IF_ERROR(lock.status());
    lock_ = *std::move(lock);
    locked_ = true;
    RemoveLeftovers(directory_);
    return CheckRoom();
  }

  absl::Status CheckRoom() const {
    uint64_t missing = 0;
    for (const StagedFile& file : files_) missing += Exists(file) ? 0 : file.bytes;
    struct statvfs info;
    if (statvfs(directory_.c_str(), &info) != 0) return IoError("query the free space of", directory_, errno);
    const uint64_t room = uint64_t{info.f_bavail} * info.f_frsize;
    if (missing <= room) return absl::OkStatus();
    return ResourceExhausted(
        absl::StrFormat("%s has %.1f GB of free space, but staging needs %.1f GB; free space, use another "
                        "--stage_dir, or leave it out",
                        directory_, static_cast<double>(room) / 1e9, static_cast<double>(missing) / 1e9));
  }

  void Run(const std::stop_token& stop) {
    const double start = Seconds();
    const bool complete = std::all_of(files_.begin(), files_.end(), [&](const auto& f) { return Exists(f); });
    absl::Status status;
    while (status.ok() && !stop.stop_requested()) {
      AdoptFinished();
      if (AllAdopted()) break;
      if (!locked_) status = TryLock();
      if (locked_ && status.ok()) status = CopyMissing(stop);
      if (!status.ok() || AllAdopted()) continue;
      std::unique_lock lock(mutex_);
      stopping_.wait_for(lock, stop, kLookAgain, [&] { return stop.stop_requested(); });
    }
    if (locked_ && status.ok() && !stop.stop_requested()) {
      options_.report(complete ? absl::StrCat(files_.size(), " shards are already in ", directory_)
                               : absl::StrFormat("%d shards copied to %s in %.1f s", files_.size(),
                                                 directory_, Seconds() - start));
    }
    if (!status.ok() && !absl::IsCancelled(status)) {
      options_.report(absl::StrCat("warning: staging failed; the run continues with the original files: ",
                                   status.message()));
    }
    lock_ = DirectoryLock();
  }

  absl::Status CopyMissing(const std::stop_token& stop) {
    for (const StagedFile& file : files_) {
      if (Exists(file)) continue;
      if (absl::Status copied = Copy(file, stop); !copied.ok()) {
        unlink((CopyPath(file) + kTemporarySuffix).c_str());
        return copied;
      }
      AdoptFinished();
    }
    return absl::OkStatus();
  }

  // Cancelled: the stager was asked to stop.
  absl::Status Copy(const StagedFile& file, const std::stop_token& stop) {
    const std::string temporary = CopyPath(file) + kTemporarySuffix;
    ASSIGN_OR_RETURN(File from, File::Open(file.path, O_RDONLY));
    ASSIGN_OR_RETURN(File to, File::Open(temporary, O_WRONLY | O_CREAT | O_TRUNC));
    RETURN_IF_ERROR(to.Allocate(file.bytes));
    Xxh3Stream hash;
    std::vector<char> chunk(kChunk);
    for (uint64_t at = 0; at < file.bytes; at += kChunk) {
      if (stop.stop_requested()) return absl::CancelledError();
      const size_t bytes = std::min<uint64_t>(kChunk, file.bytes - at);
      RETURN_IF_ERROR(from.ReadAt(at, chunk.data(), bytes));
      hash.Add(chunk.data(), bytes);
      RETURN_IF_ERROR(to.WriteAt(at, chunk.data(), bytes));
    }
    if (hash.Finish().Hex() != file.xxh3) {
      return DataLoss(file.path, " does not have the XXH3-128 that the manifest says; run `deeper verify`");
    }
    RETURN_IF_ERROR(to.Sync());
    return RenameDurably(temporary, CopyPath(file));
  }

  // Hands over the copies that exist now, made by any process.
  void AdoptFinished() {
    for (size_t i = 0; i < files_.size(); ++i) {
      if (adopted_[i] || !Exists(files_[i])) continue;
      absl::StatusOr<File> copy = File::Open(CopyPath(files_[i]), O_RDONLY);
      if (!copy.ok()) continue;
      adopted_[i] = true;
      ready_(i, *std::move(copy));
    }
  }

  bool AllAdopted() const { return std::find(adopted_.begin(), adopted_.end(), false) == adopted_.end(); }

  bool Exists(const StagedFile& file) const {
    std::error_code missing;
    return fs::file_size(CopyPath(file), missing) == file.bytes && !missing;
  }

  std::string CopyPath(const StagedFile& file) const {
    return absl::StrCat(directory_, "/", file.xxh3, "-", fs::path(file.path).filename().native());
  }

  const StageOptions options_;
  const std::string directory_;
  const std::vector<StagedFile> files_;
  const std::function<void(size_t, File)> ready_;
  std::vector<bool> adopted_;  // by file
  DirectoryLock lock_;
  bool locked_ = false;

  std::mutex mutex_;                      // of stopping_
  std::condition_variable_any stopping_;  // notified only by a stop
  std::jthread thread_;                   // last: ends before the members that it uses
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stager>> Stager::Start(const StageOptions& options,
                                                      std::vector<StagedFile> files,
                                                      std::function<void(size_t, File)> ready) {
  auto stager = std::make_unique<MachineStager>(options, std::move(files), std::move(ready));
  RETURN_IF_ERROR(stager->Begin());
  return stager;
}

}  // namespace deeper
