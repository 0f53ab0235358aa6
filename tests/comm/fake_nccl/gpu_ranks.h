// Ranks that are threads, each with its own fake GPU, connected by the fake NCCL.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "comm/nccl/nccl_communicator.h"
#include "kernels/base/device.h"
#include "kernels/base/own_kernels.h"
#include "tests/comm/threads_communicator.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"

namespace deeper {

// The rank's own.
inline absl::StatusOr<std::unique_ptr<Device>> OpenGpuOf(const Communicator& comm) {
  CudaOptions options;
  options.index = comm.rank();
  options.deterministic = true;
  return MakeCudaDevice(options, {.limit = std::chrono::minutes(5)});  // a busy machine has many ranks
}

struct GpuRank {
  Communicator& host;
  std::unique_ptr<Device> device;
  std::unique_ptr<Communicator> nccl;
};

template <class Body>
void OnGpuRanks(int size, fake_cuda::Options options, const Body& body) {
  options.devices = size;
  fake_cuda::Reset(options);
  const auto comms = MakeThreadCommunicators(size);
  std::vector<std::jthread> threads;
  for (const auto& comm : comms) {
    threads.emplace_back([&] {
      auto device = OpenGpuOf(*comm);
      ASSERT_TRUE(device.ok()) << device.status();
      GpuRank rank = {*comm, *std::move(device), nullptr};
      rank.nccl = MakeNcclCommunicator(*comm, *rank.device, /*tree_sums=*/true);
      body(rank);
    });
  }
}

}  // namespace deeper
