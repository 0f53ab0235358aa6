// A wall clock that somebody sets while a program runs. Preloaded (LD_PRELOAD), it adds hours to the time of
// day, or subtracts them, and changes its mind every 20 ms. The monotonic clock is left alone, as by the
// system.
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

namespace {

int RealTime(clockid_t clock, timespec* now) {
  using Gettime = int (*)(clockid_t, timespec*);
  static const auto real = reinterpret_cast<Gettime>(dlsym(RTLD_NEXT, "clock_gettime"));
  const int result = real(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    constexpr time_t kHours[] = {0, 5, -7, 30, -100};
    constexpr long kInterval = 20'000'000;  // ns
    now->tv_sec += 3600 * kHours[now->tv_nsec / kInterval % 5];
  }
  return result;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) {
  return RealTime(clock, now);
}

extern "C" int gettimeofday(timeval* __restrict now, void* __restrict) {
  timespec exact;
  const int result = RealTime(CLOCK_REALTIME, &exact);
  *now = {exact.tv_sec, exact.tv_nsec / 1000};
  return result;
}

extern "C" time_t time(time_t* now) {
  timespec exact;
  RealTime(CLOCK_REALTIME, &exact);
  if (now != nullptr) *now = exact.tv_sec;
  return exact.tv_sec;
}
