// Simulates a disk that fails or a rank that dies at a chosen moment. Preloaded into a rank (LD_PRELOAD), it
// counts the calls that open, write, flush, rename or remove a file beneath a directory, and makes one of
// them fail.
//
//   DEEPER_FAULT_DIR   the directory, an absolute path
//   DEEPER_FAULT_RANK  the affected rank; not set: all
//   DEEPER_FAULT_CALL  number of the call, from 1; not set: none
//   DEEPER_FAULT_KIND  kill: the process dies before it; short: a write stops halfway; an errno: it fails
//   DEEPER_FAULT_LOG   writes a line "NAME PATH" for each call to the file with this name and ".RANK"
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>

#define REAL(name) static const auto real = reinterpret_cast<decltype(&name)>(dlsym(RTLD_NEXT, #name))

namespace {

std::string Setting(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string PathOf(int fd) {
  char path[PATH_MAX];
  const ssize_t length = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
  return std::string(path, length > 0 ? static_cast<size_t>(length) : 0);
}

std::string PathOf(int directory, const char* name) {
  return directory == AT_FDCWD || *name == '/' ? name : PathOf(directory) + "/" + name;
}

void Log(const char* call, const std::string& path) {
  static const std::string log = Setting("DEEPER_FAULT_LOG");
  if (log.empty()) return;
  static std::FILE* const file = std::fopen((log + "." + Setting("OMPI_COMM_WORLD_RANK")).c_str(), "w");
  std::fprintf(file, "%s %s\n", call, path.c_str());
  std::fflush(file);
}

const std::string& Kind() {
  static const std::string kind = Setting("DEEPER_FAULT_KIND");
  return kind;
}

// Whether this call must fail.
bool Chosen(const char* call, const std::string& path) {
  static const std::string directory = Setting("DEEPER_FAULT_DIR"), rank = Setting("DEEPER_FAULT_RANK");
  static const bool is_here = rank.empty() || rank == Setting("OMPI_COMM_WORLD_RANK");
  static const long chosen = std::atol(Setting("DEEPER_FAULT_CALL").c_str());
  static std::atomic<long> calls{0};
  if (!is_here || directory.empty() || !path.starts_with(directory)) return false;
  if (path.ends_with("/.deeper-lock")) return false;  // its owner writes it at any time
  Log(call, path);
  if (++calls != chosen) return false;
  if (Kind() == "kill") kill(getpid(), SIGKILL);
  return true;
}

int Error() {
  return std::atoi(Kind().c_str());
}

int Fail() {
  errno = Error();
  return -1;
}

// How many bytes of a write the disk accepts; -1, with errno: the write fails.
ssize_t Taken(const char* call, int fd, size_t bytes) {
  if (!Chosen(call, PathOf(fd))) return static_cast<ssize_t>(bytes);
  return Kind() == "short" ? static_cast<ssize_t>((bytes + 1) / 2) : Fail();
}

mode_t ModeIn(va_list arguments, int flags) {
  return (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  REAL(open);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeIn(arguments, flags);
  va_end(arguments);
  return Chosen("open", path) ? Fail() : real(path, flags, mode);
}

int openat(int directory, const char* name, int flags, ...) {
  REAL(openat);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = ModeIn(arguments, flags);
  va_end(arguments);
  return Chosen("openat", PathOf(directory, name)) ? Fail() : real(directory, name, flags, mode);
}

ssize_t write(int fd, const void* from, size_t bytes) {
  REAL(write);
  const ssize_t taken = Taken("write", fd, bytes);
  return taken < 0 ? taken : real(fd, from, static_cast<size_t>(taken));
}

ssize_t pwrite(int fd, const void* from, size_t bytes, off_t offset) {
  REAL(pwrite);
  const ssize_t taken = Taken("pwrite", fd, bytes);
  return taken < 0 ? taken : real(fd, from, static_cast<size_t>(taken), offset);
}

int ftruncate(int fd, off_t bytes) noexcept {
  REAL(ftruncate);
  return Chosen("ftruncate", PathOf(fd)) ? Fail() : real(fd, bytes);
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
  REAL(posix_fallocate);
  return Chosen("posix_fallocate", PathOf(fd)) ? Error() : real(fd, offset, bytes);
}

int fsync(int fd) {
  REAL(fsync);
  return Chosen("fsync", PathOf(fd)) ? Fail() : real(fd);
}

int close(int fd) {  // as Linux does: frees the descriptor even then
  REAL(close);
  const bool fails = Chosen("close", PathOf(fd));
  const int result = real(fd);
  return fails ? Fail() : result;
}

int rename(const char* from, const char* to) noexcept {
  REAL(rename);
  return Chosen("rename", from) ? Fail() : real(from, to);
}

int mkdir(const char* path, mode_t mode) noexcept {
  REAL(mkdir);
  return Chosen("mkdir", path) ? Fail() : real(path, mode);
}

int unlink(const char* path) noexcept {
  REAL(unlink);
  return Chosen("unlink", path) ? Fail() : real(path);
}

int unlinkat(int directory, const char* name, int flags) noexcept {
  REAL(unlinkat);
  return Chosen("unlinkat", PathOf(directory, name)) ? Fail() : real(directory, name, flags);
}

}  // extern "C"
