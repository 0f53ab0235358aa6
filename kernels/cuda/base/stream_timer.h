// The time in which a stream has no work, between two points that the host chooses.
#pragma once

#include "kernels/base/cuda_check.h"
#include "kernels/base/device.h"

namespace deeper {

class StreamTimer final : public IdleTimer {
 public:
  explicit StreamTimer(cudaStream_t stream) : stream_(stream) {}
  void Start() override { DEEPER_CUDA_CHECK(cudaEventRecord(start_.get(), stream_)); }
  void Stop() override { DEEPER_CUDA_CHECK(cudaEventRecord(stop_.get(), stream_)); }
  double Milliseconds() override {
    float milliseconds = 0;
    DEEPER_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start_.get(), stop_.get()));
    return milliseconds;
  }

 private:
  const cudaStream_t stream_;
  const CudaEvent start_ = MakeCudaEvent(cudaEventDefault), stop_ = MakeCudaEvent(cudaEventDefault);
};

}  // namespace deeper
