// Saves checkpoints while training continues. Training only waits for a copy of its state in host memory. A
// separate thread converts the copy to the layout of the files, hashes it, writes this rank's shard, agrees
// with the other ranks, commits, and removes old checkpoints.
//
// There is room for two copies, so that a save may begin while the previous one is being written. If both are
// in use, a save waits: no requested checkpoint is skipped. The report states the wait.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "data/io/directory_lock.h"
#include "kernels/base/device.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/engine/params.h"

namespace deeper {

// A copy of one shard of the state in host memory.
class Snapshot {
 public:
  // For elements `range` of the state that `tensors` form. ResourceExhausted if there is no memory for it.
  static absl::StatusOr<Snapshot> Create(std::vector<StateTensor> tensors, StateRange range, Device& device);

  // Copies the range's part of `arena`, all of which is at `whole`, in its layout. Training waits for this
  // only.
  void Take(Device& device, const float* arena, const float* whole);
  // The copy in the order of the state and the canonical layout, tensor by tensor, so that each is still in
  // the cache when it is hashed and written.
  void Visit(const std::function<void(const float* values, int64_t count)>& visit) const;

 private:
  // A range of an arena, and the place of its copy in the buffer; in elements.
  struct Block {
    const float* arena = nullptr;
    int64_t begin = 0, end = 0, copy = 0;
  };

  std::vector<StateTensor> tensors_;  // those of the range, in part or whole
  StateRange range_;
  std::vector<Block> blocks_;
  Buffer buffer_;
};

// The result of a save.
struct SaveReport {
  int64_t step = 0;
  // The same on every rank. OK: complete on disk. Else, with kCheckpoint, older ones are unchanged.
  absl::Status status;
  std::string warning;  // on rank 0: old checkpoints could not be removed; empty: none
  double stall_ms = 0;  // that training waited, on this rank
  double wait_ms = 0;   // part of stall_ms, for earlier saves
  double seconds = 0;   // from the call of Save to the commit or the failure
};

class CheckpointSaver {
 public:
  // Collective. All must outlive the saver. `params` are for training; their slice of the state is that of
  // comm's rank. `device_comm`: the same ranks, for memory of the device; nullptr: `comm`. A save fails if
  // `lock`, on rank 0, is lost: Aborted. ResourceExhausted: no memory for the copies.
  static absl::StatusOr<std::unique_ptr<CheckpointSaver>> Create(
      std::string directory, const Retention& retention, const ParamStore& params, Communicator& comm,
      Device& device, const DirectoryLock* lock = nullptr, Communicator* device_comm = nullptr);
  // Collective: waits for running saves, whose reports are lost.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // Collective. Begins to save the state as DIR/step-N; returns when `params` may change again. State that is
  // sharded over the ranks is gathered first, in the memory of the gradients; the files are the same.
  void Save(const TrainState& state);
  // Of the saves that ended since the last call, in order.
  std::vector<SaveReport> TakeReports();
  // Waits for running saves, then as TakeReports.
  std::vector<SaveReport> Finish();

 private:
  enum class Stage { kIdle, kWorking, kWaitingForPeers };
  struct Job {
    TrainState state;
    const Snapshot* snapshot;
    SaveReport report;
    double start;
  };

  CheckpointSaver(std::string directory, const Retention& retention, const ParamStore& params,
                  Communicator& comm, Device& device, const DirectoryLock* lock, Communicator& device_comm);
  void AwaitFewerJobsThan(size_t count);
  void TakeSnapshot(Snapshot& snapshot);

  // All on the saving thread.
  void Run();
  absl::Status Write(const Job& job);
  // On rank 0, `change` if it still owns the directory.
  absl::Status IfOwner(const std::function<absl::Status()>& change) const;
  // Aborted: another process has taken the directory over.
  absl::Status CheckOwner() const;
  absl::StatusOr<std::vector<CheckpointShard>> WriteShards(const Job& job);
  absl::Status AgreeWithPeers(const absl::Status& mine);
  // Collective. -> on rank 0, why old checkpoints could not be removed.
  std::string RemoveOld(int64_t step);
  void Meet();
  void Enter(Stage stage);
  bool is_chief() const { return comm_.rank() == 0; }

  const std::string directory_;
  const Retention retention_;
  const ParamStore& params_;
  Communicator& comm_;                         // of the thread that trains
  const std::unique_ptr<Communicator> peers_;  // of the thread that saves
  Communicator& device_comm_;                  // of the thread that trains
  Device& device_;
  const DirectoryLock* const lock_;  // may be null
  const std::vector<StateTensor> tensors_;
  const int64_t shards_;                // of a checkpoint
  const std::optional<int64_t> shard_;  // that this rank writes
  const StateRange range_;              // of the state, in it
  std::array<Snapshot, 2> snapshots_;
  size_t next_snapshot_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<Job> jobs_;  // the first one is being written
  std::vector<SaveReport> reports_;
  Stage stage_ = Stage::kIdle;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace deeper
