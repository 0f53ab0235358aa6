#include "trainer/checkpoint/checkpoint_shard.h"

#include <fcntl.h>

#include <algorithm>
#include <future>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr char kDataset[] = "state";

// Creates the HDF5 file without its data.
absl::StatusOr<Hdf5Extent> CreateShardFile(const std::string& path, int64_t step, StateRange range) {
  ASSIGN_OR_RETURN(Hdf5File file, Hdf5File::Create(path));
  file.SetAttribute("format", "deeper-checkpoint-shard");
  file.SetAttribute("format_version", int64_t{1});
  file.SetAttribute("step", step);
  file.SetAttribute("first_element", range.begin);
  const Hdf5Extent extent = file.Reserve(kDataset, Hdf5Type::kF32, {static_cast<uint64_t>(range.size())});
  RETURN_IF_ERROR(file.Close());
  return extent;
}

// Adds bytes [begin, end) of the file to the hash; stores them in `keep` unless that is null; reports after
// each piece how many are read. One piece is hashed while the next one is read.
absl::Status HashFile(const File& file, uint64_t begin, uint64_t end, Xxh3Stream& hash,
                      std::byte* keep = nullptr,
                      const std::function<void(uint64_t bytes)>& read_so_far = {}) {
  constexpr uint64_t kPiece = uint64_t{4} << 20;  // worth a thread, and still in the cache when hashed
  std::vector<std::byte> buffers(keep == nullptr ? 2 * std::min(kPiece, end - begin) : 0);
  absl::Status read;
  std::future<void> hashing;
  for (uint64_t at = begin; at < end && read.ok(); at += kPiece) {
    const size_t bytes = std::min(kPiece, end - at);
    std::byte* to = keep == nullptr ? buffers.data() + (at - begin) % (2 * kPiece) : keep + (at - begin);
    read = file.ReadAt(at, to, bytes);
    if (read.ok() && read_so_far != nullptr) read_so_far(at - begin + bytes);
    if (hashing.valid()) hashing.get();
    if (read.ok()) hashing = std::async(std::launch::async, [&hash, to, bytes] { hash.Add(to, bytes); });
  }
  if (hashing.valid()) hashing.get();
  return read;
}

// "elements 0 to 4096 of the state, conv1.conv.weight (weight) to fc.bias (momentum)"
std::string Describe(const CheckpointManifest& manifest, StateRange range) {
  const auto tensor_at = [&](int64_t element) {
    const auto next = std::find_if(manifest.tensors.begin(), manifest.tensors.end(),
                                   [&](const TensorEntry& tensor) { return tensor.first > element; });
    return std::prev(next)->NameAndRole();
  };
  if (range.size() == 0) return "no element of the state";
  return absl::StrCat("elements ", range.begin, " to ", range.end, " of the state, ", tensor_at(range.begin),
                      " to ", tensor_at(range.end - 1));
}

// Reads the `range` of the state to its place in `state`; null: only verifies it.
absl::Status ReadShard(const std::string& path, const CheckpointShard& written, StateRange range,
                       float* state, const std::function<void(int64_t)>& read_to) {
  ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(const uint64_t bytes, file.Size());
  if (bytes != written.bytes) {
    return DataLoss(path, " is damaged: it has ", bytes, " bytes, its manifest says ", written.bytes);
  }
  // The whole file at once: more requests in flight than with the kernel's own read-ahead.
  const auto reading_ahead =
      std::async(std::launch::async, [fd = file.fd()] { posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED); });
  ASSIGN_OR_RETURN(const Hdf5File hdf5, Hdf5File::Open(path));
  ASSIGN_OR_RETURN(const Hdf5Extent extent, hdf5.Locate(kDataset, Hdf5Type::kF32));
  if (extent.bytes != static_cast<uint64_t>(range.size()) * sizeof(float)) {
    return DataLoss(path, " is damaged: it holds ", extent.bytes / sizeof(float), " values instead of ",
                    range.size());
  }
  Xxh3Stream hash;
  const uint64_t data_end = extent.offset + extent.bytes;
  RETURN_IF_ERROR(HashFile(file, 0, extent.offset, hash));
  auto* const keep = state == nullptr ? nullptr : reinterpret_cast<std::byte*>(state + range.begin);
  RETURN_IF_ERROR(HashFile(file, extent.offset, data_end, hash, keep, [&](uint64_t there) {
    if (read_to != nullptr) read_to(range.begin + static_cast<int64_t>(there / sizeof(float)));
  }));
  RETURN_IF_ERROR(HashFile(file, data_end, bytes, hash));
  if (hash.Finish() == written.hash) return absl::OkStatus();
  return DataLoss(path, " is damaged: it does not match its checksum in the manifest");
}

}  // namespace

absl::StatusOr<CheckpointShard> WriteCheckpointShard(const std::string& path, int64_t step, StateRange range,
                                                     const StatePieces& pieces) {
  ASSIGN_OR_RETURN(const Hdf5Extent extent, CreateShardFile(path, step, range));
  ASSIGN_OR_RETURN(File file, File::Open(path, O_RDWR));
  ASSIGN_OR_RETURN(const uint64_t created, file.Size());

  Xxh3Stream hash;
  const uint64_t data_end = extent.offset + extent.bytes, bytes = std::max(created, data_end);
  RETURN_IF_ERROR(file.Allocate(bytes));
  RETURN_IF_ERROR(HashFile(file, 0, extent.offset, hash));
  absl::Status status;
  uint64_t at = extent.offset;
  pieces([&](const float* values, int64_t count) {
    const size_t piece = static_cast<size_t>(count) * sizeof(float);
    hash.Add(values, piece);
    if (status.ok()) status = file.WriteAt(at, values, piece);
    at += piece;
  });
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(HashFile(file, data_end, bytes, hash));
  RETURN_IF_ERROR(file.Sync());
  RETURN_IF_ERROR(file.Close());
  return CheckpointShard{bytes, hash.Finish()};
}

absl::Status ReadCheckpointShards(const std::string& directory, const CheckpointManifest& manifest,
                                  int64_t first, int64_t stride, float* state,
                                  const std::function<void(int64_t end)>& read_to) {
  const auto shard_count = static_cast<int64_t>(manifest.shards.size());
  for (int64_t shard = first; shard < shard_count; shard += stride) {
    const StateRange range = ShardRange(manifest.elements(), shard, shard_count);
    absl::Status read = ReadShard(directory + "/" + ShardName(shard, shard_count),
                                  manifest.shards[static_cast<size_t>(shard)], range, state, read_to);
    if (!read.ok())
      return absl::Status(read.code(),
                          absl::StrCat(read.message(), "; it holds ", Describe(manifest, range)));
  }
  return absl::OkStatus();
}

}  // namespace deeper
