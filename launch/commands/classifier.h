// A trained network that is ready to classify images, for `eval` and `predict`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "kernels/base/device.h"
#include "trainer/engine/network.h"
#include "trainer/run/config.h"
#include "trainer/run/inputs.h"

namespace deeper {

struct ClassifierFlags {
  RunConfig config = OpenNetworkConfig();  // the checkpoint determines what the flags leave open
  std::string checkpoint;
  int64_t batch = 0;  // 0: chosen for throughput

  std::vector<FlagGroup> Groups();
};

struct Classifier {
  std::string weights;  // a step directory or a file
  int64_t step = 0;     // of training; 0 for a file
  RunConfig config;     // complete
  LoaderOptions input;  // preparation of images
  std::vector<std::string> classes;
  std::unique_ptr<Device> device;
  std::unique_ptr<ParamStore> params;
  std::unique_ptr<Network> net;
};

// Prints them to the standard error.
void Warn(const std::vector<std::string>& warnings);

// Collective. The forward pass has no more rows than `images`, which each rank has at most: they would be
// padding. Failures to find or load weights carry ExitCode::kCheckpoint.
absl::StatusOr<Classifier> OpenClassifier(const ClassifierFlags& flags, int64_t images, Communicator& comm);

}  // namespace deeper
