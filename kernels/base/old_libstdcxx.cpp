// std::condition_variable::wait of GCC 12's header asks for a symbol that only libstdc++ of GCC 12 and later
// has (GLIBCXX_3.4.30). The older one, GLIBCXX_3.4.11, differs only in that it is not noexcept. With it, a
// build runs on systems of GCC 11: docs/start/install.md. The linker replaces each use of the new symbol by
// __wrap_ (kernels/CMakeLists.txt).
#include <condition_variable>
#include <mutex>

extern "C" {

void DeeperOldWait(std::condition_variable* condition, std::unique_lock<std::mutex>& lock);
__asm__(".symver DeeperOldWait, _ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");

void __wrap__ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE(std::condition_variable* condition,
                                                                      std::unique_lock<std::mutex>& lock) {
  DeeperOldWait(condition, lock);
}

}  // extern "C"
