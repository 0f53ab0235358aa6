// Unrecoverable faults: a broken invariant, a library call that failed inside a prepared step.
//
// Anything a user can cause is a Status instead (docs/design/index.md, "Errors"). A failed check reports the
// expression, file and line, then calls the injected abort handler, so that a multi-rank job goes down
// together instead of hanging.
#pragma once

#include <string>

namespace deeper {

// Called once with the full report; expected not to return. The default prints to stderr and calls
// std::abort.
using AbortHandler = void (*)(const std::string& report);
void SetAbortHandler(AbortHandler handler);

[[noreturn]] void CheckFailed(const char* file, int line, const char* expression, const std::string& detail);

}  // namespace deeper

// DEEPER_CHECK(condition) or DEEPER_CHECK(condition, detail) with `detail` convertible to std::string.
#define DEEPER_CHECK(condition, ...)                                                   \
  do {                                                                                 \
    if (!(condition)) [[unlikely]]                                                     \
      ::deeper::CheckFailed(__FILE__, __LINE__, #condition, std::string(__VA_ARGS__)); \
  } while (false)
