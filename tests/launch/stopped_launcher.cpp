// Preloaded into rank 1 (LD_PRELOAD), it stops mpirun for three seconds whenever the rank tells mpirun that
// it leaves MPI. Open MPI 4 does so twice, and the second time counts. A rank waits two seconds for the
// answer, and then ends without it.
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace {

void StopLauncher() {
  const pid_t launcher = getppid();
  if (fork() == 0) {
    close_range(0, ~0U, 0);  // so that mpirun sees the end of the rank's output
    sleep(3);
    kill(launcher, SIGCONT);
    _exit(0);
  }
  kill(launcher, SIGSTOP);
}

}  // namespace

extern "C" int PMIx_Finalize(const void* info, size_t count) {
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank != nullptr && std::strcmp(rank, "1") == 0) StopLauncher();
  using Finalize = int (*)(const void*, size_t);
  return reinterpret_cast<Finalize>(dlsym(RTLD_NEXT, "PMIx_Finalize"))(info, count);
}
