#include "kernels/cuda/base/early_start.h"

#include <cstddef>

#include "kernels/base/check.h"
#include "kernels/base/cuda_check.h"

namespace deeper {
namespace {

thread_local EarlyStarts* g_early_starts = nullptr;

// The node that the next one in a captured stream comes after; nullptr if there is none, or several.
cudaGraphNode_t LastNode(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  const cudaGraphNode_t* nodes = nullptr;
  const cudaGraphEdgeData* edges = nullptr;
  size_t count = 0;
#if CUDART_VERSION >= 13000
  DEEPER_CUDA_CHECK(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &edges, &count));
#else
  DEEPER_CUDA_CHECK(cudaStreamGetCaptureInfo_v3(stream, &status, nullptr, nullptr, &nodes, &edges, &count));
#endif
  return status == cudaStreamCaptureStatusActive && count == 1 ? nodes[0] : nullptr;
}

}  // namespace

EarlyStarts::EarlyStarts() {
  DEEPER_CHECK(g_early_starts == nullptr);
  g_early_starts = this;
}

EarlyStarts::~EarlyStarts() {
  g_early_starts = nullptr;
}

bool MayStartEarly(cudaStream_t stream) {
  if (g_early_starts == nullptr) return false;
  const cudaGraphNode_t node = LastNode(stream);
  return node != nullptr && g_early_starts->last_[stream] == node;
}

void KernelLaunched(cudaStream_t stream) {
  if (g_early_starts != nullptr) g_early_starts->last_[stream] = LastNode(stream);
}

}  // namespace deeper
