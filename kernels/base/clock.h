// Time on a monotonic clock, since an arbitrary point in the past.
#pragma once

#include <chrono>

namespace deeper {

inline double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double Milliseconds() {
  return 1e3 * Seconds();
}

}  // namespace deeper
