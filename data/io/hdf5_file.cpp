#include "data/io/hdf5_file.h"

#include <fcntl.h>
#include <hdf5.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "data/io/file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

constexpr hsize_t kAlignment = 64 << 10;
constexpr size_t kMaxAttributeBytes = 16 << 20;  // a damaged size must not take all memory

// HDF5 is often built without thread safety. Its cleanup at exit also crashes after a full disk left a file
// unfinished. We close all files explicitly instead.
std::mutex& Hdf5Mutex() {
  static std::mutex mutex;
  [[maybe_unused]] static const herr_t without_cleaning_up = H5dont_atexit();
  return mutex;
}

// An HDF5 identifier and the call that closes it.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }  // NOLINT(google-explicit-constructor): as in HDF5's calls

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

herr_t KeepInnermost(unsigned depth, const H5E_error2_t* error, void* text) {
  if (depth == 0) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

// Why the last HDF5 call of this thread failed. A system error keeps its code and its advice.
absl::Status Hdf5Error(const std::string& action, const std::string& path) {
  std::string reason = "unknown HDF5 error";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, KeepInnermost, &reason);
  const size_t at = reason.find("errno = ");
  if (at != std::string::npos) return IoError(action, path, std::atoi(reason.c_str() + at + 8));
  return DataLoss("cannot ", action, " ", path, ": ", reason);
}

hid_t DataType(Hdf5Type type) {
  const hid_t types[] = {H5T_STD_U8LE,  H5T_STD_U16LE, H5T_STD_U32LE,
                         H5T_STD_U64LE, H5T_STD_I64LE, H5T_IEEE_F32LE};  // in the order of Hdf5Type
  return types[static_cast<size_t>(type)];
}

hid_t MakeStringType(size_t width) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, width);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

// Width of a fixed-width string type; 0 for any other type.
size_t StringWidth(hid_t type) {
  const bool fixed = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
  return fixed ? H5Tget_size(type) : 0;
}

hid_t FileAccess() {
  H5Eset_auto2(H5E_DEFAULT, nullptr,
               nullptr);  // per thread; errors are reported as Status instead of printed
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_file_locking(access, false, true);
  return access;
}

absl::StatusOr<hid_t> CreateDataset(hid_t file, const std::string& path, const std::string& name, hid_t type,
                                    const std::vector<uint64_t>& shape) {
  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  const Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose);
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(creation, H5D_CONTIGUOUS);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(creation, false);
  const hid_t dataset = H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  if (dataset < 0) return Hdf5Error(absl::StrCat("create dataset ", name, " of"), path);
  return dataset;
}

absl::Status WriteDataset(hid_t file, const std::string& path, const std::string& name, hid_t type,
                          const std::vector<uint64_t>& shape, const void* data) {
  ASSIGN_OR_RETURN(hid_t created, CreateDataset(file, path, name, type, shape));
  const Handle dataset(created, H5Dclose);
  const herr_t written = H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
  return written < 0 ? Hdf5Error(absl::StrCat("write dataset ", name, " of"), path) : absl::OkStatus();
}

absl::Status WriteAttribute(hid_t file, const std::string& path, const std::string& name, hid_t type,
                            const void* value) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle attribute(H5Acreate2(file, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  const bool ok = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
  return ok ? absl::OkStatus() : Hdf5Error(absl::StrCat("write attribute ", name, " of"), path);
}

absl::Status Missing(const char* kind, const std::string& name, const std::string& path) {
  return NotFound(path, " has no ", kind, " ", name);
}

absl::Status WrongType(const std::string& name, const std::string& path) {
  return DataLoss(name, " of ", path, " does not have the expected type");
}

struct Attribute {
  Handle id, type;
  bool is_scalar;

  Attribute(hid_t file, const std::string& name)
      : id(H5Aopen(file, name.c_str(), H5P_DEFAULT), H5Aclose), type(H5Aget_type(id), H5Tclose) {
    const Handle space(H5Aget_space(id), H5Sclose);
    is_scalar = H5Sget_simple_extent_npoints(space) == 1;
  }

  bool IsInteger() const { return is_scalar && H5Tget_class(type) == H5T_INTEGER; }
  // A string that HDF5 allocates, as h5py writes them.
  bool IsVariableString() const {
    return is_scalar && H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0;
  }
};

// The extent of an open dataset, after checking that it is contiguous and inside the file.
absl::StatusOr<Hdf5Extent> CheckedExtent(hid_t dataset, const std::string& name, const std::string& path,
                                         size_t element_bytes, uint64_t file_bytes) {
  const Handle space(H5Dget_space(dataset), H5Sclose);
  const int rank = H5Sget_simple_extent_ndims(space);
  const Handle creation(H5Dget_create_plist(dataset), H5Pclose);
  if (rank < 0 || H5Pget_layout(creation) != H5D_CONTIGUOUS) {
    return DataLoss(name, " of ", path, " is not a contiguous array");
  }
  std::vector<hsize_t> dims(static_cast<size_t>(rank));
  H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  Hdf5Extent extent;
  extent.shape.assign(dims.begin(), dims.end());
  extent.bytes = element_bytes;
  bool inside = true;
  for (const uint64_t dim : extent.shape) {
    inside = inside && !__builtin_mul_overflow(extent.bytes, dim, &extent.bytes);
  }
  if (inside && extent.bytes == 0) return extent;
  extent.offset = H5Dget_offset(dataset);
  if (!inside || extent.bytes > file_bytes || extent.offset > file_bytes - extent.bytes) {
    return DataLoss(name, " of ", path, " reaches beyond the end of the file");
  }
  return extent;
}

}  // namespace

FixedStrings::FixedStrings(const std::vector<std::string>& strings) {
  for (const std::string& s : strings) width = std::max(width, s.size());
  for (const std::string& s : strings) bytes.append(s).append(width - s.size(), '\0');
}

std::string FixedStrings::operator[](size_t i) const {
  const std::string padded = bytes.substr(i * width, width);
  return padded.substr(0, padded.find('\0'));
}

absl::StatusOr<Hdf5File> Hdf5File::Create(const std::string& path) {
  std::scoped_lock lock(Hdf5Mutex());
  const Handle access(FileAccess(), H5Pclose);
  H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_alignment(access, kAlignment, kAlignment);
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access);
  if (id < 0) return Hdf5Error("create", path);
  return Hdf5File(id, path, 0);
}

absl::StatusOr<Hdf5File> Hdf5File::Open(const std::string& path) {
  std::error_code unknown;  // opening it reports the error
  const std::filesystem::file_type type = std::filesystem::status(path, unknown).type();
  if (type == std::filesystem::file_type::fifo || type == std::filesystem::file_type::character)
    return FailedPrecondition(path, " is not a regular file; HDF5 cannot read from a pipe: pass a file");
  ASSIGN_OR_RETURN(File file, File::Open(path, O_RDONLY));
  ASSIGN_OR_RETURN(uint64_t bytes, file.Size());
  std::scoped_lock lock(Hdf5Mutex());
  const Handle access(FileAccess(), H5Pclose);
  const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access);
  if (id < 0) return Hdf5Error("read", path);
  return Hdf5File(id, path, bytes);
}

Hdf5File::Hdf5File(Hdf5File&& other) noexcept
    : id_(std::exchange(other.id_, -1)),
      path_(std::move(other.path_)),
      bytes_(other.bytes_),
      status_(std::move(other.status_)) {}

Hdf5File::~Hdf5File() {
  Close().IgnoreError();
}

absl::Status Hdf5File::Close() {
  if (id_ < 0) return status_;  // closed or moved from; the caller may hold the lock
  std::scoped_lock lock(Hdf5Mutex());
  if (H5Fclose(std::exchange(id_, -1)) < 0) status_.Update(Hdf5Error("finish", path_));
  return status_;
}

void Hdf5File::WriteArray(const std::string& name, Hdf5Type type, const std::vector<uint64_t>& shape,
                          const void* data) {
  std::scoped_lock lock(Hdf5Mutex());
  if (status_.ok()) status_ = WriteDataset(id_, path_, name, DataType(type), shape, data);
}

void Hdf5File::Write(const std::string& name, const FixedStrings& strings) {
  std::scoped_lock lock(Hdf5Mutex());
  const Handle type(MakeStringType(strings.width), H5Tclose);
  if (status_.ok()) status_ = WriteDataset(id_, path_, name, type, {strings.size()}, strings.bytes.data());
}

Hdf5Extent Hdf5File::Reserve(const std::string& name, Hdf5Type type, const std::vector<uint64_t>& shape) {
  std::scoped_lock lock(Hdf5Mutex());
  if (!status_.ok()) return {};
  absl::StatusOr<hid_t> created = CreateDataset(id_, path_, name, DataType(type), shape);
  status_ = created.status();
  if (!created.ok()) return {};
  const Handle dataset(*created, H5Dclose);
  return {shape, H5Dget_offset(dataset), H5Dget_storage_size(dataset)};
}

void Hdf5File::SetAttribute(const std::string& name, int64_t value) {
  std::scoped_lock lock(Hdf5Mutex());
  if (status_.ok()) status_ = WriteAttribute(id_, path_, name, H5T_STD_I64LE, &value);
}

void Hdf5File::SetAttribute(const std::string& name, const std::string& value) {
  std::scoped_lock lock(Hdf5Mutex());
  const FixedStrings padded({value});
  const Handle type(MakeStringType(padded.width), H5Tclose);
  if (status_.ok()) status_ = WriteAttribute(id_, path_, name, type, padded.bytes.data());
}

absl::StatusOr<Hdf5Extent> Hdf5File::Locate(const std::string& name, Hdf5Type type) const {
  std::scoped_lock lock(Hdf5Mutex());
  const Handle dataset(H5Dopen2(id_, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset < 0) return Missing("dataset", name, path_);
  const Handle stored(H5Dget_type(dataset), H5Tclose);
  if (H5Tequal(stored, DataType(type)) <= 0) return WrongType(name, path_);
  return CheckedExtent(dataset, name, path_, H5Tget_size(stored), bytes_);
}

std::vector<std::string> Hdf5File::Names() const {
  std::scoped_lock lock(Hdf5Mutex());
  H5G_info_t info{};
  H5Gget_info(id_, &info);
  std::vector<std::string> names;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    const auto entry = [&](char* name, size_t bytes) {
      return H5Lget_name_by_idx(id_, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, bytes, H5P_DEFAULT);
    };
    std::string name(static_cast<size_t>(std::max<ssize_t>(0, entry(nullptr, 0))), '\0');
    entry(name.data(), name.size() + 1);
    names.push_back(name);
  }
  return names;
}

absl::Status Hdf5File::ReadArray(const std::string& name, Hdf5Type type, void* data) const {
  std::scoped_lock lock(Hdf5Mutex());
  const Handle dataset(H5Dopen2(id_, name.c_str(), H5P_DEFAULT), H5Dclose);
  const bool ok = dataset >= 0 && H5Dread(dataset, DataType(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
  return ok ? absl::OkStatus() : Hdf5Error(absl::StrCat("read dataset ", name, " of"), path_);
}

absl::Status Hdf5File::Read(const std::string& name, FixedStrings* strings) const {
  std::scoped_lock lock(Hdf5Mutex());
  const Handle dataset(H5Dopen2(id_, name.c_str(), H5P_DEFAULT), H5Dclose);
  if (dataset < 0) return Missing("dataset", name, path_);
  const Handle type(H5Dget_type(dataset), H5Tclose);
  strings->width = StringWidth(type);
  if (strings->width == 0) return WrongType(name, path_);
  ASSIGN_OR_RETURN(Hdf5Extent extent, CheckedExtent(dataset, name, path_, strings->width, bytes_));
  strings->bytes.resize(extent.bytes);
  const herr_t read = H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, strings->bytes.data());
  return read < 0 ? Hdf5Error(absl::StrCat("read dataset ", name, " of"), path_) : absl::OkStatus();
}

absl::Status Hdf5File::ReadAttribute(const std::string& name, int64_t* value) const {
  std::scoped_lock lock(Hdf5Mutex());
  const Attribute attribute(id_, name);
  if (attribute.id < 0) return Missing("attribute", name, path_);
  if (!attribute.IsInteger()) return WrongType(name, path_);
  if (H5Aread(attribute.id, H5T_NATIVE_INT64, value) >= 0) return absl::OkStatus();
  return Hdf5Error(absl::StrCat("read attribute ", name, " of"), path_);
}

absl::Status Hdf5File::ReadAttribute(const std::string& name, std::string* value) const {
  std::scoped_lock lock(Hdf5Mutex());
  const Attribute attribute(id_, name);
  if (attribute.id < 0) return Missing("attribute", name, path_);
  if (attribute.IsVariableString()) {
    char* text = nullptr;
    if (H5Aread(attribute.id, attribute.type, static_cast<void*>(&text)) < 0)
      return Hdf5Error(absl::StrCat("read attribute ", name, " of"), path_);
    *value = text == nullptr ? "" : text;
    H5free_memory(text);
    return absl::OkStatus();
  }
  FixedStrings string;
  string.width = StringWidth(attribute.type);
  if (!attribute.is_scalar || string.width == 0 || string.width > kMaxAttributeBytes)
    return WrongType(name, path_);
  string.bytes.resize(string.width);
  if (H5Aread(attribute.id, attribute.type, string.bytes.data()) < 0)
    return Hdf5Error(absl::StrCat("read attribute ", name, " of"), path_);
  *value = string[0];
  return absl::OkStatus();
}

}  // namespace deeper
