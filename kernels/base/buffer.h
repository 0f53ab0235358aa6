// Owned memory. A Buffer is one allocation, freed on destruction; views into it are plain pointers.
#pragma once

#include <cstddef>
#include <utility>

namespace deeper {

class Buffer {
 public:
  using Deleter = void (*)(void* data, size_t bytes);

  Buffer() = default;
  Buffer(void* data, size_t bytes, Deleter deleter) : data_(data), bytes_(bytes), deleter_(deleter) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) deleter_(data_, bytes_);
  }

  std::byte* data() const { return static_cast<std::byte*>(data_); }
  size_t bytes() const { return bytes_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(deleter_, other.deleter_);
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
  Deleter deleter_ = nullptr;
};

// Zeroed host memory on 2 MiB boundaries where it is large enough, advised to use huge pages (5-7 % of a CPU
// training step). An empty Buffer if the system has no memory left; `bytes` == 0 gives a valid empty buffer.
Buffer AllocateHost(size_t bytes);

// Has the system find the pages of memory from AllocateHost now: on one thread while another fills them.
void Populate(void* data, size_t bytes);

}  // namespace deeper
