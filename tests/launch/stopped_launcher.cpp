// Preloaded into rank 1 (LD_PRELOAD), it stops mpirun for three seconds whenever the rank calls
// PMIx_Finalize, and writes a line to the file STOPPED_LAUNCHER_LOG. Each rank calls it twice with Open
// MPI 4. The second call tells mpirun that the rank leaves MPI, and waits two seconds for the answer
// (PMIx 4.2).
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

void StopLauncher() {
  const pid_t launcher = getppid(), helper = fork();
  if (helper < 0) return;
  if (helper == 0) {
    close_range(0, ~0U, 0);  // so that mpirun sees the end of the rank's output
    sleep(3);
    kill(launcher, SIGCONT);
    _exit(0);
  }
  kill(launcher, SIGSTOP);
  if (std::FILE* const log = std::fopen(std::getenv("STOPPED_LAUNCHER_LOG"), "a")) {
    std::fprintf(log, "stopped %d\n", launcher);
    std::fclose(log);
  }
}

}  // namespace

extern "C" int PMIx_Finalize(const void* info, size_t count) {
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  if (rank != nullptr && std::strcmp(rank, "1") == 0) StopLauncher();
  using Finalize = int (*)(const void*, size_t);
  return reinterpret_cast<Finalize>(dlsym(RTLD_NEXT, "PMIx_Finalize"))(info, count);
}
