// A stand-in for NCCL over the fake CUDA (tests/kernels/fake_cuda/fake_cuda.h). Ranks are threads, each with
// its own fake GPU. Linked in place of comm/nccl/nccl_library.cpp, under the real NcclCommunicator.
//
// A collective is an entry of a stream's queue, or a node of a graph. It runs, for all ranks at once, when it
// is at its turn in the stream of every rank. Sums are in the order of ranks. Calls return ncclInProgress,
// and the collective is not yet in the stream, until ncclCommGetAsyncError was asked some more times (drawn);
// the first of each kind until all ranks have called it; then perhaps ncclSuccess at once. Ends the process
// with a message:
//   - ranks whose collectives differ in kind, count, type, operation or root; a rank that does not come
//   - two threads in one communicator; a call while another is in progress
//   - memory of the host, of another device, freed, or too small
//   - a communicator that is destroyed too early, or ends with work under way or with memory registered
// Options::faults may name these functions. The error is then an ncclResult_t.
#pragma once

namespace deeper::fake_nccl {

// Every eighth call on a communicator takes this long: for threads to meet.
void SlowCalls(int milliseconds);
// From now on NCCL knows that a peer is lost, and says so to who asks.
void LosePeer();

}  // namespace deeper::fake_nccl
