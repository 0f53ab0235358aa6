// The process in its environment: limits, signals, standard streams, and exceptions that nobody catches.
#pragma once

#include <string>

namespace deeper {

// Call once, before anything opens a file or starts a thread.
//   Streams: a closed standard stream gets a descriptor that cannot be used, so that no data file takes its
//     number. Writes to it fail.
//   Open files: the soft limit becomes the hard one, at most 65536. Shards stay open while they are in use.
//   SIGXFSZ and SIGPIPE are ignored: the write fails instead, and its error is reported.
//   SIGHUP ends the process, unless it is ignored (nohup). UCX, which Open MPI 5 may load with the program,
//     takes it for a debugger (UCX_DEBUG_SIGNO).
//   Exceptions that nobody catches go to `end_job` as one message. It does not return. This is how the lack
//     of memory and of threads is reported, wherever it happens.
void PrepareProcess(void (*end_job)(const std::string& report));

}  // namespace deeper
