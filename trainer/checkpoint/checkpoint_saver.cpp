#include "trainer/checkpoint/checkpoint_saver.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/agree.h"
#include "comm/phase.h"
#include "kernels/base/clock.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "kernels/base/trace.h"
#include "trainer/checkpoint/checkpoint_shard.h"

namespace deeper {
namespace {

// The shard that a rank writes; nullopt: none.
std::optional<int64_t> ShardOf(int rank, int64_t shards, int ranks) {
  for (int64_t shard = 0; shard < shards; ++shard)
    if (WriterOf(shard, shards, ranks) == rank) return shard;
  return std::nullopt;
}

// Between checks for the peers. Request::Wait makes no pause and would occupy a core that computes.
constexpr std::chrono::milliseconds kPause{1};

}  // namespace

absl::StatusOr<Snapshot> Snapshot::Create(std::vector<StateTensor> tensors, StateRange range,
                                          Device& device) {
  std::erase_if(tensors, [&](const StateTensor& tensor) {
    return tensor.entry.first >= range.end || tensor.entry.end() <= range.begin;
  });
  Snapshot snapshot;
  for (const auto& [entry, param, arena] : tensors) {
    std::vector<Block>& blocks = snapshot.blocks_;
    const int64_t begin = param->offset, end = begin + param->layout.stored_elements;
    if (blocks.empty() || blocks.back().arena != arena) blocks.push_back({arena, begin, end});
    blocks.back().begin = std::min(blocks.back().begin, begin);
    blocks.back().end = std::max(blocks.back().end, end);
  }
  int64_t elements = 0;
  for (Block& block : snapshot.blocks_) {
    block.copy = elements;
    elements += block.end - block.begin;
  }
  const size_t bytes = static_cast<size_t>(elements) * sizeof(float);
  snapshot.tensors_ = std::move(tensors);
  snapshot.range_ = range;
  snapshot.buffer_ = device.AllocateStaging(bytes);
  if (bytes > 0 && snapshot.buffer_.data() == nullptr) {
    return ResourceExhausted("cannot allocate ", bytes >> 20,
                             " MiB of host memory for the copy of the state that checkpoints need");
  }
  return snapshot;
}

void Snapshot::Take(Device& device, const float* arena, const float* whole) {
  for (const Block& block : blocks_) {
    if (block.arena != arena) continue;
    const size_t bytes = static_cast<size_t>(block.end - block.begin) * sizeof(float);
    device.StartDownload(buffer_.as<float>() + block.copy, whole + block.begin, bytes)->Wait();
  }
}

void Snapshot::Visit(const std::function<void(const float* values, int64_t count)>& visit) const {
  std::vector<float> whole;
  auto block = blocks_.begin();
  for (const auto& [entry, param, arena] : tensors_) {
    while (block->arena != arena) ++block;
    whole.resize(static_cast<size_t>(entry.count));
    UnpackParam(param->spec, param->layout, buffer_.as<float>() + block->copy + param->offset - block->begin,
                whole.data());
    const int64_t begin = std::max(range_.begin, entry.first);
    const int64_t end = std::min(range_.end, entry.end());
    visit(whole.data() + (begin - entry.first), end - begin);
  }
}

absl::StatusOr<std::unique_ptr<CheckpointSaver>> CheckpointSaver::Create(
    std::string directory, const Retention& retention, const ParamStore& params, Communicator& comm,
    Device& device, const DirectoryLock* lock, Communicator* device_comm) {
  std::unique_ptr<CheckpointSaver> saver(new CheckpointSaver(std::move(directory), retention, params, comm,
                                                             device, lock,
                                                             device_comm == nullptr ? comm : *device_comm));
  absl::Status room;
  for (Snapshot& snapshot : saver->snapshots_) {
    absl::StatusOr<Snapshot> made = Snapshot::Create(saver->tensors_, saver->range_, device);
    room.Update(made.status());
    if (made.ok()) snapshot = *std::move(made);
  }
  RETURN_IF_ERROR(Agree(comm, room));
  return saver;
}

CheckpointSaver::CheckpointSaver(std::string directory, const Retention& retention, const ParamStore& params,
                                 Communicator& comm, Device& device, const DirectoryLock* lock,
                                 Communicator& device_comm)
    : directory_(std::move(directory)),
      retention_(retention),
      params_(params),
      comm_(comm),
      peers_(comm.Duplicate()),
      device_comm_(device_comm),
      device_(device),
      lock_(lock),
      tensors_(StateTensors(params, WithOptimizer::kYes)),
      shards_(ShardsOf(tensors_.back().entry.end(), comm.size())),
      shard_(ShardOf(comm.rank(), shards_, comm.size())),
      range_(shard_ ? ShardRange(tensors_.back().entry.end(), *shard_, shards_) : StateRange{0, 0}),
      thread_([this] { Run(); }) {}

CheckpointSaver::~CheckpointSaver() {
  Finish();
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CheckpointSaver::Save(const TrainState& state) {
  const double start = Seconds();
  AwaitFewerJobsThan(snapshots_.size());
  const double waited = Seconds() - start;
  Snapshot& snapshot = snapshots_[next_snapshot_];
  next_snapshot_ = (next_snapshot_ + 1) % snapshots_.size();
  TakeSnapshot(snapshot);
  SaveReport report;
  report.step = state.step;
  report.wait_ms = 1e3 * waited;
  report.stall_ms = 1e3 * (Seconds() - start);
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({state, &snapshot, std::move(report), start});
  }
  changed_.notify_all();
}

// The gradients' memory, which is unused between two steps, has room for one sharded arena at a time.
void CheckpointSaver::TakeSnapshot(Snapshot& snapshot) {
  const float* taken = nullptr;
  for (const StateTensor& tensor : tensors_) {
    if (tensor.arena == taken) continue;
    taken = tensor.arena;
    const float* whole = tensor.arena;
    if (params_.IsSharded(whole)) {
      const size_t bytes = static_cast<size_t>(params_.state_elements()) * sizeof(float);
      device_comm_.AllGather(tensor.arena, params_.grads(), bytes, device_.stream()).Wait();
      whole = params_.grads();
    }
    snapshot.Take(device_, tensor.arena, whole);
  }
}

std::vector<SaveReport> CheckpointSaver::TakeReports() {
  const std::lock_guard lock(mutex_);
  return std::exchange(reports_, {});
}

std::vector<SaveReport> CheckpointSaver::Finish() {
  AwaitFewerJobsThan(1);
  return TakeReports();
}

// The watchdog sees a rank that waits for a save in the state of the save: working, or waiting for peers.
void CheckpointSaver::AwaitFewerJobsThan(size_t count) {
  std::unique_lock lock(mutex_);
  while (jobs_.size() >= count) {
    std::optional<WaitingForPeers> waiting;
    if (stage_ == Stage::kWaitingForPeers) waiting.emplace();
    changed_.wait(lock, [&, seen = stage_] { return jobs_.size() < count || stage_ != seen; });
  }
}

void CheckpointSaver::Run() {
  TraceLane("checkpoint");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    Job& job = jobs_.front();  // does not move: others are added behind it
    lock.unlock();
    Enter(Stage::kWorking);
    SaveReport report = job.report;
    TraceBegin(TraceLevel::kStep, absl::StrCat("step ", report.step));
    report.status = WithExitCode(Write(job), ExitCode::kCheckpoint);
    TraceEnd(TraceLevel::kStep);
    report.seconds = Seconds() - job.start;
    if (is_chief() && !report.status.ok() && CheckOwner().ok()) RemoveUnfinished(directory_, report.step);
    if (report.status.ok()) report.warning = RemoveOld(report.step);
    lock.lock();
    reports_.push_back(std::move(report));
    jobs_.pop_front();
    stage_ = Stage::kIdle;
    changed_.notify_all();
  }
}

// Makes the directory, writes the shards, commits; the ranks agree in between.
absl::Status CheckpointSaver::Write(const Job& job) {
  RETURN_IF_ERROR(AgreeWithPeers(IfOwner([&] { return CreateUnfinished(directory_, job.state.step); })));
  ASSIGN_OR_RETURN(std::vector<CheckpointShard> shards, WriteShards(job));
  return AgreeWithPeers(IfOwner([&] {
    return CommitCheckpoint(directory_, {job.state, std::move(shards), EntriesOf(tensors_)});
  }));
}

std::string CheckpointSaver::RemoveOld(int64_t step) {
  absl::Status removed;
  VerifyTogether(
      *peers_,
      [&](const CheckpointVerifier& verify) {
        removed = RemoveOldCheckpoints(directory_, step, retention_, verify, [this] { return CheckOwner(); });
      },
      [this] { Meet(); });
  return std::string(removed.message());
}

absl::Status CheckpointSaver::IfOwner(const std::function<absl::Status()>& change) const {
  if (!is_chief()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckOwner());
  return change();
}

absl::Status CheckpointSaver::CheckOwner() const {
  return lock_ == nullptr ? absl::OkStatus() : lock_->Check();
}

// Returns all shards, on every rank.
absl::StatusOr<std::vector<CheckpointShard>> CheckpointSaver::WriteShards(const Job& job) {
  absl::StatusOr<CheckpointShard> mine = CheckpointShard();
  if (shard_) {
    const std::string path =
        UnfinishedStepDirectory(directory_, job.state.step) + "/" + ShardName(*shard_, shards_);
    mine = WriteCheckpointShard(path, job.state.step, range_,
                                [&](const auto& take) { job.snapshot->Visit(take); });
  }
  RETURN_IF_ERROR(AgreeWithPeers(mine.status()));
  static_assert(std::is_trivially_copyable_v<CheckpointShard>);
  std::vector<CheckpointShard> all(static_cast<size_t>(peers_->size())), shards;
  peers_->AllGather(&*mine, all.data(), sizeof(CheckpointShard), {}).Wait();
  for (int64_t shard = 0; shard < shards_; ++shard)
    shards.push_back(all[static_cast<size_t>(WriterOf(shard, shards_, peers_->size()))]);
  return shards;
}

absl::Status CheckpointSaver::AgreeWithPeers(const absl::Status& mine) {
  Meet();
  return Agree(*peers_, mine);
}

// Waits until all ranks have called it, without polling all the time.
void CheckpointSaver::Meet() {
  Enter(Stage::kWaitingForPeers);
  int64_t present = 1;
  Request all_present = peers_->AllReduce(&present, 1, CommType::kI64, ReduceOp::kMin, {});
  while (!all_present.Test()) std::this_thread::sleep_for(kPause);
  Enter(Stage::kWorking);
}

void CheckpointSaver::Enter(Stage stage) {
  {
    const std::lock_guard lock(mutex_);
    stage_ = stage;
  }
  changed_.notify_all();
}

}  // namespace deeper
