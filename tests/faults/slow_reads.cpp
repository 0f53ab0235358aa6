// Simulates a disk that is slow or stops responding. Preloaded into a rank (LD_PRELOAD), it delays every read
// of a shard by DEEPER_FAULT_READ_MS milliseconds. After DEEPER_FAULT_READS reads it blocks all further ones.
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

long Setting(const char* name, long otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::atol(value);
}

bool IsShard(int fd) {
  char link[64], path[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path);
  return length > 0 && std::string_view(path, static_cast<size_t>(length)).ends_with(".h5");
}

void Delay() {
  static const long milliseconds = Setting("DEEPER_FAULT_READ_MS", 0);
  static const long answered = Setting("DEEPER_FAULT_READS", LONG_MAX);
  static std::atomic<long> reads{0};
  usleep(static_cast<useconds_t>(1000 * milliseconds));
  while (reads >= answered) pause();
  ++reads;
}

}  // namespace

extern "C" ssize_t pread(int fd, void* to, size_t bytes, off_t offset) {
  using Pread = ssize_t (*)(int, void*, size_t, off_t);
  static const auto real = reinterpret_cast<Pread>(dlsym(RTLD_NEXT, "pread"));
  if (IsShard(fd)) Delay();
  return real(fd, to, bytes, offset);
}
