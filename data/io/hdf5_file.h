// Serial HDF5 files of plain contiguous arrays and attributes, as shards and checkpoints need them.
//
// The same content gives the same bytes: format V110, no timestamps, early allocation, objects of 64 KiB and
// more aligned to 64 KiB, no variable-length types. Takes no file locks, since network file systems often
// lack them. Any number of threads may use different Hdf5Files; HDF5 itself runs one call at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/base/status.h"

namespace deeper {

enum class Hdf5Type : uint8_t { kU8, kU16, kU32, kU64, kI64, kF32 };

template <class T>
constexpr Hdf5Type Hdf5TypeOf() {
  if constexpr (std::is_same_v<T, uint8_t>) return Hdf5Type::kU8;
  if constexpr (std::is_same_v<T, uint16_t>) return Hdf5Type::kU16;
  if constexpr (std::is_same_v<T, uint32_t>) return Hdf5Type::kU32;
  if constexpr (std::is_same_v<T, uint64_t>) return Hdf5Type::kU64;
  if constexpr (std::is_same_v<T, int64_t>) return Hdf5Type::kI64;
  if constexpr (std::is_same_v<T, float>) return Hdf5Type::kF32;
}

// Strings of one width, padded with zero bytes and concatenated, as in the file.
struct FixedStrings {
  size_t width = 1;
  std::string bytes;

  FixedStrings() = default;
  explicit FixedStrings(const std::vector<std::string>& strings);
  size_t size() const { return bytes.size() / width; }
  std::string operator[](size_t i) const;
};

// Location of a dataset's bytes in its file, for pread and pwrite.
struct Hdf5Extent {
  std::vector<uint64_t> shape;
  uint64_t offset = 0, bytes = 0;
};

class Hdf5File {
 public:
  // Replaces an existing file at `path`.
  static absl::StatusOr<Hdf5File> Create(const std::string& path);
  // Read only. DataLoss: not an HDF5 file, or one that was not written to its end. FailedPrecondition: a
  // pipe.
  static absl::StatusOr<Hdf5File> Open(const std::string& path);
  Hdf5File(Hdf5File&& other) noexcept;
  Hdf5File& operator=(Hdf5File&&) = delete;
  ~Hdf5File();

  const std::string& path() const { return path_; }

  // Writing. Close() reports the first error; nothing is written after it. (HDF5's own close reports success
  // after a failed write.)
  template <class T>
  void Write(const std::string& name, const std::vector<uint64_t>& shape, const T* data) {
    WriteArray(name, Hdf5TypeOf<T>(), shape, data);
  }
  template <class T>
  void Write(const std::string& name, const std::vector<T>& values) {
    WriteArray(name, Hdf5TypeOf<T>(), {values.size()}, values.data());
  }
  void Write(const std::string& name, const FixedStrings& strings);
  // Creates a dataset without its content. Write the bytes at the returned place after closing the file.
  Hdf5Extent Reserve(const std::string& name, Hdf5Type type, const std::vector<uint64_t>& shape);
  void SetAttribute(const std::string& name, int64_t value);
  void SetAttribute(const std::string& name, const std::string& value);
  // Ends writing or reading; the destructor does it too.
  absl::Status Close();

  // Reading. NotFound: no such name. DataLoss: another type, not contiguous, or bytes beyond the end of the
  // file.
  absl::StatusOr<Hdf5Extent> Locate(const std::string& name, Hdf5Type type) const;
  // Names of all datasets, in alphabetical order.
  std::vector<std::string> Names() const;
  template <class T>
  absl::Status Read(const std::string& name, std::vector<T>* values) const {
    ASSIGN_OR_RETURN(Hdf5Extent extent, Locate(name, Hdf5TypeOf<T>()));
    values->resize(extent.bytes / sizeof(T));
    return ReadArray(name, Hdf5TypeOf<T>(), values->data());
  }
  absl::Status Read(const std::string& name, FixedStrings* strings) const;
  // An integer of any width; a string of any kind.
  absl::Status ReadAttribute(const std::string& name, int64_t* value) const;
  absl::Status ReadAttribute(const std::string& name, std::string* value) const;

 private:
  Hdf5File(int64_t id, std::string path, uint64_t bytes) : id_(id), path_(std::move(path)), bytes_(bytes) {}
  void WriteArray(const std::string& name, Hdf5Type type, const std::vector<uint64_t>& shape,
                  const void* data);
  absl::Status ReadArray(const std::string& name, Hdf5Type type, void* data) const;

  int64_t id_ = -1;  // hid_t
  std::string path_;
  uint64_t bytes_;       // size of the file when it was opened
  absl::Status status_;  // first error of writing
};

}  // namespace deeper
