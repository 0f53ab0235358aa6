// A trained network, ready to classify images: what `eval` and `predict` have in common.
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

namespace deeper {

struct ClassifierFlags {
  ClassifierFlags();

  RunConfig config;  // what the flags leave open is as the checkpoint says
  std::string checkpoint;
  int64_t batch = 64;

  std::vector<FlagGroup> Groups();
};

struct Classifier {
  std::string weights;  // where they came from: a step directory or a file
  int64_t step = 0;     // of training; 0 for a file
  RunConfig config;     // complete
  LoaderOptions input;  // how images are prepared
  std::vector<std::string> classes;
  std::unique_ptr<Device> device;
  std::unique_ptr<ParamStore> params;
  std::unique_ptr<Network> net;
};

// Prints them to the standard error.
void Warn(const std::vector<std::string>& warnings);

// Collective. Failures to find or load weights carry ExitCode::kCheckpoint.
absl::StatusOr<Classifier> OpenClassifier(const ClassifierFlags& flags, Communicator& comm);

}  // namespace deeper
