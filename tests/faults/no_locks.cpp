// Simulates a mount without byte-range locks, such as Lustre's without the option flock. Preloaded
// (LD_PRELOAD), it makes such locks fail.
#include <dlfcn.h>
#include <fcntl.h>

#include <cerrno>
#include <cstdarg>

extern "C" int fcntl(int fd, int command, ...) {
  static const auto real = reinterpret_cast<decltype(&fcntl)>(dlsym(RTLD_NEXT, "fcntl"));
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (command != F_OFD_SETLK) return real(fd, command, argument);
  errno = ENOLCK;
  return -1;
}

extern "C" int fcntl64(int fd, int command, ...) __attribute__((alias("fcntl")));
