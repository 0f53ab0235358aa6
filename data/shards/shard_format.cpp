#include "data/shards/shard_format.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/io/checksum.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr char kFormat[] = "deeper-shard";
constexpr int64_t kVersion = 1;

// Calls visit(name, value) for each attribute, except those that identify the format. The only list of them.
template <class Header, class Visit>
void VisitAttributes(Header& header, const Visit& visit) {
  visit("channels", header.channels);
  visit("dataset_uuid", header.uuid);
  visit("split", header.split);
  visit("shard_index", header.shard_index);
  visit("shard_count", header.shard_count);
  visit("first_sample", header.first_sample);
  visit("n_samples", header.samples);
  visit("total_samples", header.total_samples);
}

// Visits each array with an entry per sample, except the names. The only list of them.
template <class Index, class Visit>
void VisitArrays(Index& index, const Visit& visit) {
  visit("offset", index.offset);
  visit("length", index.length);
  visit("label", index.label);
  visit("crc32c", index.crc32c);
  visit("width", index.width);
  visit("height", index.height);
  visit("flags", index.flags);
}

absl::Status ReadHeader(const Hdf5File& file, ShardHeader* header) {
  std::string format;
  int64_t version = 0;
  if (!file.ReadAttribute("format", &format).ok() || format != kFormat) {
    return FailedPrecondition(file.path(), " is not a shard (format=", kFormat, ")");
  }
  absl::Status status = file.ReadAttribute("format_version", &version);
  if (status.ok() && version != kVersion) {
    return FailedPrecondition(file.path(), " has shard format version ", version,
                              "; this program reads version ", kVersion);
  }
  std::string encoding;
  status.Update(file.ReadAttribute("encoding", &encoding));
  VisitAttributes(*header,
                  [&](const char* name, auto& value) { status.Update(file.ReadAttribute(name, &value)); });
  RETURN_IF_ERROR(status);
  absl::StatusOr<Encoding> parsed = ParseEncoding(encoding);
  if (!parsed.ok()) return DataLoss(file.path(), ": ", parsed.status().message());
  header->encoding = *parsed;
  return absl::OkStatus();
}

absl::Status ReadIndex(const Hdf5File& file, ShardIndex* index) {
  absl::Status status;
  VisitArrays(*index, [&](const char* name, auto& values) { status.Update(file.Read(name, &values)); });
  status.Update(file.Read("name", &index->names));
  status.Update(file.Read("classes", &index->classes));
  std::string hash;
  status.Update(file.ReadAttribute("index_xxh3", &hash));
  if (!status.ok() || hash == HashIndex(*index)) return status;
  return DataLoss(file.path(), ": the index does not match its index_xxh3");
}

// Whether every array has an entry for each of the shard's samples.
bool HasAllEntries(const ShardHeader& header, const ShardIndex& index) {
  const auto samples = static_cast<size_t>(header.samples);
  bool all = samples > 0 && index.names.size() == samples;
  VisitArrays(index, [&](const char*, const auto& values) { all = all && values.size() == samples; });
  return all;
}

// What is wrong with the entry of sample `i`; empty if nothing.
std::string EntryProblem(const ShardHeader& header, const ShardIndex& index, size_t i, uint64_t data_bytes) {
  const uint64_t length = index.length[i], pixels = uint64_t{index.width[i]} * index.height[i];
  if (length == 0 || length > data_bytes || index.offset[i] > data_bytes - length) {
    return absl::StrCat("offset ", index.offset[i], " + length ", length, " lies outside the ", data_bytes,
                        " bytes of /data");
  }
  if (index.label[i] >= index.classes.size()) {
    return absl::StrCat("label ", index.label[i], ", but there are ", index.classes.size(), " classes");
  }
  if (pixels == 0) return "no pixels";
  if (header.encoding == Encoding::kRaw && length != pixels * static_cast<uint64_t>(header.channels)) {
    return absl::StrCat("length ", length, ", which is not width x height x channels");
  }
  return "";
}

}  // namespace

absl::StatusOr<Encoding> ParseEncoding(const std::string& name) {
  if (const auto encoding = ValueOf<Encoding>(name)) return *encoding;
  return InvalidArgument("unknown encoding \"", name, "\"; use raw or jpeg");
}

std::string HashIndex(const ShardIndex& index) {
  Xxh3Stream hash;
  VisitArrays(index, [&](const char*, const auto& values) {
    hash.Add(values.data(), values.size() * sizeof(values[0]));
  });
  hash.Add(index.names.bytes.data(), index.names.bytes.size());
  hash.Add(index.classes.bytes.data(), index.classes.bytes.size());
  return hash.Finish().Hex();
}

std::string ShardFileName(const std::string& split, int64_t index, int64_t count) {
  return absl::StrFormat("%s-%05d-of-%05d.h5", split, index, count);
}

bool IsShardFileName(const std::string& name, const std::string& split) {
  return absl::StartsWith(name, split + "-") && absl::StrContains(name, "-of-") &&
         absl::EndsWith(name, ".h5");
}

void WriteHeaderAndIndex(const ShardHeader& header, const ShardIndex& index, Hdf5File* file) {
  file->SetAttribute("format", kFormat);
  file->SetAttribute("format_version", kVersion);
  file->SetAttribute("encoding", NameOf(header.encoding));
  file->SetAttribute("index_xxh3", HashIndex(index));
  VisitAttributes(header, [&](const char* name, const auto& value) { file->SetAttribute(name, value); });
  VisitArrays(index, [&](const char* name, const auto& values) { file->Write(name, values); });
  file->Write("name", index.names);
  file->Write("classes", index.classes);
}

absl::Status CheckIndex(const std::string& path, uint64_t data_bytes, const ShardHeader& header,
                        const ShardIndex& index) {
  if (header.channels != 1 && header.channels != 3)
    return DataLoss(path, ": channels = ", header.channels, ", not 1 or 3");
  if (!HasAllEntries(header, index)) {
    return DataLoss(path, ": its index arrays do not all have n_samples = ", header.samples, " entries");
  }
  for (size_t i = 0; i < index.offset.size(); ++i) {
    const std::string problem = EntryProblem(header, index, i, data_bytes);
    if (problem.empty()) continue;
    return DataLoss(path, ", sample ", i, " (", index.names[i], "): ", problem);
  }
  return absl::OkStatus();
}

absl::Status ReadHeaderAndIndex(const Hdf5File& file, uint64_t data_bytes, ShardHeader* header,
                                ShardIndex* index) {
  RETURN_IF_ERROR(ReadHeader(file, header));
  RETURN_IF_ERROR(ReadIndex(file, index));
  return CheckIndex(file.path(), data_bytes, *header, *index);
}

}  // namespace deeper
