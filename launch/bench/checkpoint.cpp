#include <fcntl.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "kernels/base/buffer.h"
#include "kernels/base/status.h"
#include "launch/bench/harness.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_saver.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench checkpoint",
    .summary = "times saving and loading checkpoints, and compares with bare files",
    .operands = "",
    .details =
        R"(Each round trains a step, saves the state, trains another step during the save, and loads the state.
Then it writes and flushes the same number of bytes to one plain file per rank, and reads them into new memory.
It drops files from the page cache before it reads them, if the file system supports this. Prints medians as
JSON. Times are those of the slowest rank.)",
    .examples = R"(deeper bench checkpoint --dir=/scratch/bench
mpirun -n 4 deeper bench checkpoint --dir=/scratch/bench --model=googlenet --batch=32)",
    .distributed = true,
};

absl::Status DropFromCache(const std::string& path) {
  ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  return absl::OkStatus();
}

absl::Status WriteBare(const std::string& path, const std::vector<std::byte>& bytes) {
  ASSIGN_OR_RETURN(File file, File::Open(path, O_WRONLY | O_CREAT | O_TRUNC));
  RETURN_IF_ERROR(file.WriteAt(0, bytes.data(), bytes.size()));
  return file.Sync();
}

// Reads into new memory, as a program does that has just started.
absl::Status ReadBare(const std::string& path, size_t bytes) {
  ASSIGN_OR_RETURN(const File file, File::Open(path, O_RDONLY));
  return file.ReadAt(0, AllocateHost(bytes).data(), bytes);
}

// In milliseconds, in the order of a round.
struct Figures {
  std::vector<double> step, stall, step_meanwhile, save, bare_write, restore, bare_read;
};

class BenchCheckpointCommand final : public Command {
 public:
  BenchCheckpointCommand() : Command(kText) {
    config_.num_classes = 1000;
    config_.lr = 0.001;
  }

  std::vector<FlagGroup> Flags() override {
    return {ModelFlags(config_),
            MachineFlags(config_),
            {"Measuring",
             {{"dir", &dir_, "new directory to write to, which is removed at the end"},
              {"batch", &batch_, "images per step on each rank", Range(1, 1e6)},
              {"repeats", &repeats_, "rounds", Range(1)}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (dir_.empty()) return InvalidArgument("needs --dir=DIR");
    comm_ = &call.comm;
    absl::Status status;
    std::error_code unknown;  // creating it reports the error
    if (call.is_root() && std::filesystem::exists(dir_, unknown))
      status = InvalidArgument("--dir=", dir_, ": exists already");
    if (status.ok() && call.is_root()) status = CreateDirectories(dir_);
    RETURN_IF_ERROR(Agree(*comm_, status));
    status = training_.Prepare(config_, batch_, *comm_);
    if (status.ok()) status = Measure();
    comm_->Barrier();
    if (call.is_root()) std::filesystem::remove_all(dir_, unknown);
    if (status.ok() && call.is_root()) Print();
    return status;
  }

 private:
  absl::Status Measure() {
    const auto step = [&] {
      training_.Load();
      training_.Step();
      training_.device().Synchronize();
    };
    for (int i = 0; i < 2; ++i) step();  // warms up
    ASSIGN_OR_RETURN(
        const std::unique_ptr<CheckpointSaver> saver,
        CheckpointSaver::Create(dir_, {.keep = 1}, training_.params(), *comm_, training_.device()));
    for (int64_t round = 1; round <= repeats_; ++round) {
      figures_.step.push_back(Milliseconds(step));
      saver->Save(StateOf(2 * round - 1));
      figures_.step_meanwhile.push_back(Milliseconds(step));
      const SaveReport during_a_step = saver->Finish().at(0);
      RETURN_IF_ERROR(during_a_step.status);
      figures_.stall.push_back(Slowest(during_a_step.stall_ms));
      RETURN_IF_ERROR(TimeFiles(2 * round, *saver));
    }
    return absl::OkStatus();
  }

  // Times a save and a load without a step in parallel, and the plain files.
  absl::Status TimeFiles(int64_t step, CheckpointSaver& saver) {
    comm_->Barrier();
    saver.Save(StateOf(step));
    const SaveReport saved = saver.Finish().at(0);
    RETURN_IF_ERROR(saved.status);
    figures_.save.push_back(Slowest(1e3 * saved.seconds));

    const std::string path = StepDirectory(dir_, step);
    ASSIGN_OR_RETURN(const CheckpointManifest manifest, Agree(*comm_, ReadCheckpointManifest(path)));
    const auto shards = static_cast<int64_t>(manifest.shards.size());
    const std::string shard = path + "/" + ShardName(comm_->rank() % shards, shards);
    const std::string bare = absl::StrCat(dir_, "/bare-", comm_->rank());
    bytes_.resize(std::filesystem::file_size(shard) * manifest.shards.size() /
                  static_cast<size_t>(comm_->size()));
    absl::Status status;
    figures_.bare_write.push_back(Milliseconds([&] { status = WriteBare(bare, bytes_); }));
    for (const std::string& file : {bare, shard})
      if (status.ok()) status = DropFromCache(file);
    RETURN_IF_ERROR(Agree(*comm_, status));

    ASSIGN_OR_RETURN(const std::unique_ptr<ParamStore> resumed,
                     Agree(*comm_, training_.params().MakeEmpty()));
    figures_.restore.push_back(Milliseconds(
        [&] { status = LoadCheckpoint(path, StateOf(step), Match::kExact, *resumed, *comm_).status(); }));
    RETURN_IF_ERROR(status);
    figures_.bare_read.push_back(Milliseconds([&] { status = ReadBare(bare, bytes_.size()); }));
    return Agree(*comm_, status);
  }

  TrainState StateOf(int64_t step) const {
    return {step, {}, {{"model", config_.model}, {"num_classes", config_.num_classes}}};
  }

  // Of the slowest rank.
  template <class Work>
  double Milliseconds(const Work& work) {
    return Slowest(MillisecondsTogether(*comm_, work));
  }

  double Slowest(double ms) {
    comm_->AllReduce(&ms, 1, CommType::kF64, ReduceOp::kMax, {}).Wait();
    return ms;
  }

  void Print() const {
    const double bytes = static_cast<double>(bytes_.size()) * comm_->size();
    const auto mb_per_s = [&](const std::vector<double>& ms) { return bytes / Median(ms) / 1e3; };
    nlohmann::ordered_json json = {
        {"benchmark", "checkpoint"},
        {"bytes", bytes},
        {"step_ms", Median(figures_.step)},
        {"stall_ms", Median(figures_.stall)},
        {"stall_in_steps", MedianRatio(figures_.stall, figures_.step)},
        {"step_while_saving_ms", Median(figures_.step_meanwhile)},
        {"save_mb_per_s", mb_per_s(figures_.save)},
        {"bare_write_mb_per_s", mb_per_s(figures_.bare_write)},
        {"save_of_bare_write", MedianRatio(figures_.bare_write, figures_.save)},
        {"restore_mb_per_s", mb_per_s(figures_.restore)},
        {"bare_read_mb_per_s", mb_per_s(figures_.bare_read)},
        {"restore_of_bare_read", MedianRatio(figures_.bare_read, figures_.restore)}};
    PrintBenchmark(std::move(json),
                   {{"model", config_.model},
                    {"device", NameOf(config_.device)},
                    {"batch", batch_},
                    {"ranks", comm_->size()},
                    {"repeats", repeats_}},
                   training_.device().Describe());
  }

  RunConfig config_;
  std::string dir_;
  int64_t batch_ = 32;
  int repeats_ = 20;

  Communicator* comm_ = nullptr;
  BenchTraining training_;
  std::vector<std::byte> bytes_;  // as many as in this rank's shard
  Figures figures_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchCheckpoint() {
  return std::make_unique<BenchCheckpointCommand>();
}

}  // namespace deeper
