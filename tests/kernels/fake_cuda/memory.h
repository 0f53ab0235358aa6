// Device memory that faults when the host touches it, and pinned memory. Calls are serialized by the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace deeper::fake_cuda {

// Prints "fake CUDA (seed N): message" and aborts.
[[noreturn]] void Fail(const std::string& message);

enum class Place { kDevice, kPinned, kPageable };

class Memory {
 public:
  Memory();
  // nullptr beyond `limit` bytes of a device.
  void* Allocate(size_t bytes, int device, size_t limit);
  void* AllocatePinned(size_t bytes);
  // False: not the begin of one that is allocated. Addresses of device memory do not come back until
  // ForgetFreed.
  bool Free(void* data);
  bool FreePinned(void* data);

  void ForgetFreed();  // once all is freed
  size_t used(int device) const;
  size_t allocations() const;
  // Fails where a range is not within one allocation, or is freed, or another device's.
  Place PlaceOf(const void* data, size_t bytes, int device) const;
  size_t PinnedBytes(const void* data) const;

  // Of what runs in a stream and has faulted at `address`: opens the allocation there. False: there is none.
  bool Open(const void* address);
  void CloseAll();  // the host may not touch them
  std::string Describe(const void* address) const;
  bool IsDevice(const void* address) const;

 private:
  struct Allocation {
    size_t bytes;
    int device, number;
    bool freed = false;
  };
  const Allocation* Find(const void* address) const;

  uintptr_t base_ = 0, next_ = 0;
  int allocated_ = 0;
  std::map<uintptr_t, Allocation> device_;  // by begin
  std::map<uintptr_t, size_t> live_;        // those of them that are not freed: bytes
  std::vector<uintptr_t> open_;             // those of them that may be touched
  std::map<uintptr_t, size_t> pinned_;
};

}  // namespace deeper::fake_cuda
