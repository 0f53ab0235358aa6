// One complete save, for tests that do nothing meanwhile.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "trainer/checkpoint/checkpoint_saver.h"

namespace deeper {

inline absl::Status SaveCheckpoint(const std::string& directory, const TrainState& state,
                                   const ParamStore& params, Communicator& comm,
                                   const Retention& retention = {}) {
  const std::unique_ptr<Device> device = MakeCpuDevice(1);
  const auto saver = CheckpointSaver::Create(directory, retention, params, comm, *device);
  if (!saver.ok()) return saver.status();
  (*saver)->Save(state);
  return (*saver)->Finish().at(0).status;
}

}  // namespace deeper
