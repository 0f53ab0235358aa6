// A stand-in for the CUDA run time, on the host: linked in place of it, the real GPU device
// (device_cuda.cpp), its recordings and all that is built on them run where there is no GPU.
//
// A stream is a queue of closures. They run late: when a call has to wait for them, and in an order that is
// drawn from a seed, within what streams and events allow; some seeds run them early instead. Kernels run
// their functors (include/kernels/cuda/base/cuda_launch.h), cuDNN, cuBLASLt and tensor core kernels naive
// loops (libraries.cpp).
//
// What CUDA reports is returned as its error, with a line on stderr that says why. What CUDA lets pass, and
// what would be a fault on a GPU now and then, ends the process with a message:
//   - the host touches device memory; a kernel touches what is freed, or outside of every allocation
//   - host memory changes between a copy from it and the time that copy runs; or is written while a copy to
//   it is
//     under way, or freed. A copy to the host fills its target with 0xCD first, so that early readers find
//     that
//   - a kernel starts early that does not directly follow another kernel of deeper in its stream
//   - a wait for an event that was never recorded; a handle that was destroyed
// Memory is 0xA5 when it is allocated. More strictly than CUDA, host memory that is not pinned is copied
// late, too, which Device::Copy allows, and which CUDA does where a GPU reads the memory of the host
// directly.
//
// Not modelled: time, peer access, managed memory, the legacy stream's order with others, blocking streams.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace deeper::fake_cuda {

// A call that does not do what it should.
struct Fault {
  std::string call;                      // "cudaMalloc"; for kernels and library calls "launch"
  int nth = 1;                           // the first is 1
  cudaError_t error = cudaErrorUnknown;  // what it returns; cudaSuccess: it hangs, for ever
  bool sticky = false;                   // all later calls return the same: the context is lost
  int signal = 0;                        // instead of all that: this signal, and the call does its work
};

// What the kernels that the tuner checks do.
enum class OwnKernels { kRight, kWrong, kFault, kHang };

struct Options {
  uint64_t seed = 0;
  int devices = 1;
  int capability = 90;                    // compute capability, 9.0
  size_t memory_bytes = size_t{4} << 30;  // of each device
  bool unlike = false;                    // the devices are of different models
  std::vector<size_t> claimed_free = {};  // of each device, to cudaMemGetInfo; empty: the truth
  int patience_seconds = 60;              // for a device that a collective waits for; then the process fails
  std::vector<Fault> faults = {};
  OwnKernels own_kernels = OwnKernels::kRight;
};

// All streams are forgotten, with what is in them; device memory must have been freed. Before the first call
// the options come from $DEEPER_FAKE_CUDA: words "seed=N", "devices=N", "memory=BYTES",
// "fail=CALL:NTH:ERROR", "lose=CALL:NTH:ERROR" (sticky), "hang=CALL:NTH", "signal=CALL:NTH:SIGNAL" and
// "own=wrong|fault|hang", separated by spaces.
void Reset(const Options& options);

// How often each call was made since Reset.
std::map<std::string, int> Calls();

int CurrentDevice();

OwnKernels OwnKernelsAre();
// From work in a stream: the context is lost.
void Lose(cudaError_t error);

// A launch: sets what cudaGetLastError returns. The first launch of a name loads its code, which a capture
// forbids.
cudaError_t Launch(cudaStream_t stream, const std::string& name, std::function<void()> run);
// The same for a kernel of deeper, as LaunchKernel (kernel_launch.h). One that starts early must come after
// another one in a capture, and is counted as "early start".
cudaError_t LaunchOwn(cudaStream_t stream, const std::string& name, std::function<void()> run);
// cudaFuncGetAttributes of one of deeper's kernels.
cudaError_t FindCode();

}  // namespace deeper::fake_cuda
