// Programmatic dependent launch (CUDA programming guide): a kernel of a recorded step starts before the one
// in front of it has ended, and waits for it on the GPU (AwaitPreviousKernel in kernel_launch.h). That hides
// a part of the latency of its launch. For compute capability 9.0 and later.
//
// Only a kernel of deeper starts early, and only if another one comes directly before it in its stream.
// Calls of libraries, copies, and what waits for several nodes of the graph start after all that is before
// them.
#pragma once

#include <cuda_runtime_api.h>

#include <map>

namespace deeper {

constexpr int kFirstWithEarlyStarts = 90;  // compute capability
constexpr int kDriverWithEdges = 12030;    // the driver of CUDA 12.3: its graphs have edges for early starts

// For what this thread enqueues in streams that are captured, while this exists. One at a time.
class EarlyStarts {
 public:
  EarlyStarts();
  ~EarlyStarts();
  EarlyStarts(const EarlyStarts&) = delete;
  EarlyStarts& operator=(const EarlyStarts&) = delete;

 private:
  friend bool MayStartEarly(cudaStream_t);
  friend void KernelLaunched(cudaStream_t);
  std::map<cudaStream_t, cudaGraphNode_t> last_;  // our last kernel in each stream
};

// Whether a kernel of deeper may start early that is launched next in this stream.
bool MayStartEarly(cudaStream_t stream);
// To be called after the launch of a kernel of deeper.
void KernelLaunched(cudaStream_t stream);

}  // namespace deeper
