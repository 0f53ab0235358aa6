// One shard of the state as it was at one moment, in host memory.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/device.h"
#include "trainer/checkpoint/checkpoint_manifest.h"
#include "trainer/checkpoint/state_table.h"

namespace deeper {

class Snapshot {
 public:
  // Of elements `range` of the state that `tensors` make up. ResourceExhausted if there is no memory for it.
  static absl::StatusOr<Snapshot> Create(std::vector<StateTensor> tensors, StateRange range, Device& device);

  // Copies the arenas as they are, without a look at layouts: training waits for this, and for nothing else.
  void Take(Device& device);
  // What was taken, in the order of the state and the canonical layout, tensor by tensor: as they are
  // arranged they are still in the cache when they are hashed and written.
  void Visit(const std::function<void(const float* values, int64_t count)>& visit) const;

 private:
  // A stretch of an arena, and where its copy lies in the buffer; in elements.
  struct Block {
    float* arena = nullptr;
    int64_t begin = 0, end = 0, copy = 0;
  };

  std::vector<StateTensor> tensors_;  // those of the range, in part or whole
  StateRange range_;
  std::vector<Block> blocks_;
  Buffer buffer_;
};

}  // namespace deeper
