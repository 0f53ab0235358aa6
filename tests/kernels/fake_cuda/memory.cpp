#include "tests/kernels/fake_cuda/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace deeper::fake_cuda {
namespace {

constexpr size_t kPage = 4096, kReserved = size_t{1} << 39, kAlignment = 256, kHugePage = size_t{2} << 20;

uintptr_t AddressOf(const void* data) {
  return reinterpret_cast<uintptr_t>(data);
}
size_t Pages(size_t bytes) {
  return (bytes + kPage - 1) / kPage * kPage;
}
// Its end, not its begin, is at a page's border: what reads beyond it faults.
uintptr_t FirstPage(uintptr_t begin) {
  return begin / kPage * kPage;
}

void Protect(uintptr_t begin, size_t bytes, int protection) {
  const uintptr_t page = FirstPage(begin);
  mprotect(reinterpret_cast<void*>(page), Pages(begin + bytes - page), protection);
}

void* Map(size_t bytes, int protection) {
  void* const data = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) Fail(absl::StrCat("the host has no ", bytes, " bytes of addresses"));
  return data;
}

}  // namespace

Memory::Memory() {
  base_ = next_ = AddressOf(Map(kReserved, PROT_NONE));
  // Protect changes every page: few large ones are faster, where the host has them.
  madvise(reinterpret_cast<void*>(base_), kReserved, MADV_HUGEPAGE);
}

void* Memory::Allocate(size_t bytes, int device, size_t limit) {
  if (used(device) + bytes > limit) return nullptr;
  const size_t aligned = (bytes + kAlignment - 1) / kAlignment * kAlignment, pages = Pages(aligned);
  next_ += kPage;  // a guard
  if (pages >= kHugePage) next_ = (next_ + kHugePage - 1) / kHugePage * kHugePage;
  if (next_ + pages > base_ + kReserved) Fail("the addresses of device memory are used up");
  const uintptr_t begin = next_ + pages - aligned;
  void* const data = reinterpret_cast<void*>(begin);
  mprotect(reinterpret_cast<void*>(next_), pages, PROT_READ | PROT_WRITE);
  std::memset(data, 0xA5, aligned);
  mprotect(reinterpret_cast<void*>(next_), pages, PROT_NONE);
  device_.insert({begin, {bytes, device, ++allocated_}});
  live_[begin] = bytes;
  open_.reserve(live_.size());
  next_ += pages;
  return data;
}

bool Memory::Free(void* data) {
  const auto found = device_.find(AddressOf(data));
  if (found == device_.end() || found->second.freed) return false;
  found->second.freed = true;
  live_.erase(found->first);
  const uintptr_t page = FirstPage(found->first);
  madvise(reinterpret_cast<void*>(page), Pages(found->first + found->second.bytes - page), MADV_DONTNEED);
  return true;
}

void* Memory::AllocatePinned(size_t bytes) {
  void* const data = Map(Pages(bytes), PROT_READ | PROT_WRITE);
  std::memset(data, 0xA5, bytes);
  pinned_[AddressOf(data)] = bytes;
  return data;
}

bool Memory::FreePinned(void* data) {
  const auto found = pinned_.find(AddressOf(data));
  if (found == pinned_.end()) return false;
  munmap(data, Pages(found->second));
  pinned_.erase(found);
  return true;
}

void Memory::ForgetFreed() {
  device_.clear();
  next_ = base_;
}

size_t Memory::used(int device) const {
  size_t bytes = 0;
  for (const auto& [begin, allocation] : device_)
    if (!allocation.freed && allocation.device == device) bytes += allocation.bytes;
  return bytes;
}

size_t Memory::allocations() const {
  size_t count = 0;
  for (const auto& [begin, allocation] : device_) count += !allocation.freed;
  return count;
}

const Memory::Allocation* Memory::Find(const void* address) const {
  auto found = device_.upper_bound(AddressOf(address));
  if (found == device_.begin()) return nullptr;
  return &(--found)->second;
}

bool Memory::IsDevice(const void* address) const {
  return AddressOf(address) >= base_ && AddressOf(address) < base_ + kReserved;
}

std::string Memory::Describe(const void* address) const {
  const auto found = device_.upper_bound(AddressOf(address));
  if (found == device_.begin()) return "device memory outside of every allocation";
  const auto& [begin, a] = *std::prev(found);
  return absl::StrCat("byte ", AddressOf(address) - begin, " of allocation ", a.number, ", which has ",
                      a.bytes, " bytes", a.freed ? " and is freed" : "");
}

Place Memory::PlaceOf(const void* data, size_t bytes, int device) const {
  const uintptr_t begin = AddressOf(data);
  if (IsDevice(data)) {
    const Allocation* const a = Find(data);
    auto found = device_.upper_bound(begin);
    if (a == nullptr || a->freed || begin + bytes > (--found)->first + a->bytes)
      Fail(absl::StrCat("a copy of ", bytes, " bytes from or to ", Describe(data)));
    if (a->device != device)
      Fail(absl::StrCat("a stream of device ", device, " and memory of device ", a->device));
    return Place::kDevice;
  }
  auto found = pinned_.upper_bound(begin);
  if (found == pinned_.begin()) return Place::kPageable;
  --found;
  if (begin >= found->first + found->second) return Place::kPageable;
  if (begin + bytes > found->first + found->second)
    Fail(absl::StrCat("a copy of ", bytes, " bytes goes beyond pinned memory of ", found->second));
  return Place::kPinned;
}

size_t Memory::PinnedBytes(const void* data) const {
  const auto found = pinned_.find(AddressOf(data));
  return found == pinned_.end() ? 0 : found->second;
}

// Called by a signal handler, so it does not allocate memory.
bool Memory::Open(const void* address) {
  const auto found = live_.upper_bound(AddressOf(address));
  if (found == live_.begin()) return false;
  const auto& [begin, bytes] = *std::prev(found);
  if (AddressOf(address) >= begin + bytes || std::find(open_.begin(), open_.end(), begin) != open_.end())
    return false;
  open_.push_back(begin);
  Protect(begin, bytes, PROT_READ | PROT_WRITE);
  return true;
}

void Memory::CloseAll() {
  for (const uintptr_t begin : open_) Protect(begin, live_.at(begin), PROT_NONE);
  open_.clear();
}

}  // namespace deeper::fake_cuda
