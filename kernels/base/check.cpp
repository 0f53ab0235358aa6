#include "kernels/base/check.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "kernels/base/trial.h"

namespace deeper {
namespace {
std::atomic<AbortHandler> g_abort_handler{nullptr};
thread_local const std::string* g_context = nullptr;
}  // namespace

void SetAbortHandler(AbortHandler handler) {
  g_abort_handler = handler;
}

void SetCheckContext(const std::string* what) {
  g_context = what;
}

void CheckFailed(const char* file, int line, const char* expression, const std::string& detail) {
  std::string report = std::string(file) + ":" + std::to_string(line) + ": check failed: " + expression;
  if (!detail.empty()) report += ": " + detail;
  if (g_context != nullptr) report += " (" + *g_context + ")";
  std::fprintf(stderr, "%s\n", report.c_str());
  if (AbortHandler handler = g_abort_handler.exchange(nullptr)) handler(report);
  std::abort();
}

}  // namespace deeper
