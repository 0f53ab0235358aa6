#include "kernels/base/buffer.h"

#include <sys/mman.h>

#include "kernels/base/tensor.h"

namespace deeper {
namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}  // namespace

Buffer AllocateHost(size_t bytes) {
  if (bytes == 0) return {};
  // mmap aligns the zeroed pages to 4 KiB only. Map one huge page more and trim the ends.
  const bool huge = bytes >= kHugePage;
  const size_t size = RoundUp(bytes, huge ? kHugePage : 4096);
  const size_t mapped = huge ? size + kHugePage : size;
  void* raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return {};
  auto* begin = static_cast<std::byte*>(raw);
  if (huge) {
    const auto address = reinterpret_cast<size_t>(begin);
    std::byte* const aligned = begin + (RoundUp(address, kHugePage) - address);
    if (aligned != begin) munmap(begin, static_cast<size_t>(aligned - begin));
    const size_t tail = static_cast<size_t>(begin + mapped - (aligned + size));
    if (tail != 0) munmap(aligned + size, tail);
    madvise(aligned, size, MADV_HUGEPAGE);
    begin = aligned;
  }
  return Buffer(begin, bytes,
                [](void* data, size_t n) { munmap(data, RoundUp(n, n >= kHugePage ? kHugePage : 4096)); });
}

void Populate(void* data, size_t bytes) {
  // Where madvise fails, as on Linux before 5.14, the first access allocates the pages.
  if (bytes > 0) madvise(data, bytes, MADV_POPULATE_WRITE);
}

}  // namespace deeper
