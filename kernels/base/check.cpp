#include "kernels/base/check.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace deeper {
namespace {
std::atomic<AbortHandler> g_abort_handler{nullptr};
}

void SetAbortHandler(AbortHandler handler) {
  g_abort_handler = handler;
}

void CheckFailed(const char* file, int line, const char* expression, const std::string& detail) {
  std::string report = std::string(file) + ":" + std::to_string(line) + ": check failed: " + expression;
  if (!detail.empty()) report += ": " + detail;
  std::fprintf(stderr, "%s\n", report.c_str());
  if (AbortHandler handler = g_abort_handler.exchange(nullptr)) handler(report);
  std::abort();
}

}  // namespace deeper
