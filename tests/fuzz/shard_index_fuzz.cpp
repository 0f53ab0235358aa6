// A shard's header and index as read from HDF5: arrays of any length with arbitrary numbers.
#include <algorithm>
#include <cstring>

#include "data/shards/shard_format.h"
#include "tests/fuzz/fuzz.h"

namespace {

// Reads the input in pieces. Returns zeros after its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  template <class T>
  T Take() {
    T value{};
    const size_t bytes = std::min(sizeof value, left_);
    if (bytes > 0) std::memcpy(&value, data_, bytes);
    data_ += bytes;
    left_ -= bytes;
    return value;
  }
  // Usually has `size` entries.
  template <class T>
  void Fill(size_t size, std::vector<T>* values) {
    const auto odd = Take<uint8_t>();
    values->resize(odd < 16 ? odd : size);
    for (T& value : *values) value = Take<T>();
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input in(data, size);
  deeper::ShardHeader header;
  header.encoding = in.Take<uint8_t>() & 1 ? deeper::Encoding::kRaw : deeper::Encoding::kJpeg;
  header.samples = in.Take<int8_t>();
  header.channels = in.Take<uint8_t>() & 1 ? 3 : in.Take<int64_t>();
  const uint64_t data_bytes = in.Take<uint8_t>() & 1 ? in.Take<uint16_t>() : in.Take<uint64_t>();
  const auto samples = static_cast<size_t>(std::clamp<int64_t>(header.samples, 0, 8));
  deeper::ShardIndex index;
  in.Fill(samples, &index.offset);
  in.Fill(samples, &index.length);
  in.Fill(samples, &index.label);
  in.Fill(samples, &index.crc32c);
  in.Fill(samples, &index.width);
  in.Fill(samples, &index.height);
  in.Fill(samples, &index.flags);
  for (deeper::FixedStrings* strings : {&index.names, &index.classes}) {
    strings->width = 1 + in.Take<uint8_t>() % 8;
    strings->bytes.assign(in.Take<uint8_t>() % 64, 'x');
  }
  if (!deeper::CheckIndex("x.h5", data_bytes, header, index).ok()) return 0;
  FUZZ_CHECK(static_cast<size_t>(header.samples) == index.offset.size());
  for (size_t i = 0; i < index.offset.size(); ++i) {
    const unsigned __int128 end = static_cast<unsigned __int128>(index.offset[i]) + index.length.at(i);
    FUZZ_CHECK(index.length[i] > 0 && end <= data_bytes);
    FUZZ_CHECK(index.label.at(i) < index.classes.size() && !index.names[i].empty());
    const uint64_t pixels = uint64_t{index.width.at(i)} * index.height.at(i);
    FUZZ_CHECK(pixels > 0 && index.flags.size() > i && index.crc32c.size() > i);
    if (header.encoding == deeper::Encoding::kRaw)
      FUZZ_CHECK(index.length[i] ==
                 static_cast<unsigned __int128>(pixels) * static_cast<uint64_t>(header.channels));
  }
  return 0;
}
