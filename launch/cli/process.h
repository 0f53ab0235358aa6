// The process in its environment: limits, signals, standard streams, and exceptions that nobody catches.
#pragma once

#include <string>

namespace deeper {

// Call once, before anything opens a file or starts a thread.
//   Streams: a closed standard stream gets a descriptor that cannot be used, so that no data file takes its
//     number. Writes to it fail.
//   Open files: the soft limit becomes the hard one, at most 65536. Shards stay open while they are in use.
//   SIGXFSZ and SIGPIPE are ignored: the write fails instead, and its error is reported.
//   SIGHUP: RestoreHangup.
//   Exceptions that nobody catches go to `end_job` as one message. It does not return. This is how the lack
//     of memory and of threads is reported, wherever it happens.
void PrepareProcess(void (*end_job)(const std::string& report));

// SIGHUP does what the parent process decided: it ends this process, or it is ignored (nohup). UCX, a library
// of Open MPI, takes the signal for a debugger (UCX_DEBUG_SIGNO) when it is loaded. Call again after MPI has
// begun, which may load UCX.
void RestoreHangup();

}  // namespace deeper
