// Unrecoverable faults: a broken invariant, or a library call that fails inside a prepared step.
//
// Anything that a user can cause is a Status instead (docs/design/index.md, "Errors"). A failed check reports
// the expression, file and line, then calls the injected abort handler. The handler ends all ranks of a job,
// which would otherwise hang.
#pragma once

#include <string>

namespace deeper {

// Receives the full report once and should not return. The default prints it to stderr and calls std::abort.
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
