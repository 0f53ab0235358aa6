// A library that takes SIGHUP for itself when it is loaded, as UCX does, which Open MPI 5 may contain.
// Preload it (LD_PRELOAD).
#include <csignal>

namespace {

[[gnu::constructor]] void Take() {
  std::signal(SIGHUP, [](int) {});
}

}  // namespace
