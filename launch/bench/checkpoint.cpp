#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "kernels/base/buffer.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/placement.h"
#include "launch/cli/run_flags.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/checkpoint_saver.h"
#include "trainer/engine/network.h"
#include "trainer/engine/optimizer.h"
#include "trainer/run/inputs.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "bench checkpoint",
    .summary = "times saving and resuming against bare writes and reads",
    .operands = "",
    .details =
        "Each round trains a step, saves the state, trains a step while it is being written, and loads it; "
        "then "
        "it\n"
        "writes and flushes as many bytes to one file a rank, and reads them again into new memory, with "
        "nothing around it. "
        "Before\n"
        "it is read, a file is dropped from the page cache, as far as the file system does so. Prints "
        "medians "
        "as JSON;\n"
        "times are those of the slowest rank.",
    .examples =
        "deeper bench checkpoint --dir=/scratch/bench\n"
        "mpirun -n 4 deeper bench checkpoint --dir=/scratch/bench --model=googlenet --batch=32",
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

// Into new memory, as a program does that has just started.
absl::Status ReadBare(const std::string& path, size_t bytes) {
  const absl::StatusOr<File> file = File::Open(path, O_RDONLY);
  return file.ok() ? file->ReadAt(0, AllocateHost(bytes).data(), bytes) : file.status();
}

// What is measured, in the order of a round; milliseconds.
struct Figures {
  std::vector<double> step, stall, step_meanwhile, save, bare_write, restore, bare_read;
};

class BenchCheckpointCommand final : public Command {
 public:
  BenchCheckpointCommand() : Command(kText) {
    config_.num_classes = 1000;
    config_.synthetic = true;
  }

  std::vector<FlagGroup> Flags() override {
    return {ModelFlags(config_),
            MachineFlags(config_),
            {"Measuring",
             {{"dir", &dir_, "where to write: a new directory, which is removed in the end"},
              {"batch", &batch_, "images a step on each rank"},
              {"repeats", &repeats_, "rounds"}}}};
  }

  absl::Status Run(const Invocation& call) override {
    if (dir_.empty() || batch_ < 1 || repeats_ < 1)
      return absl::InvalidArgumentError("needs --dir=DIR; --batch and --repeats must be at least 1");
    comm_ = &call.comm;
    absl::Status status;
    if (call.is_root() && std::filesystem::exists(dir_))
      status = absl::InvalidArgumentError(absl::StrCat("--dir=", dir_, ": is there already"));
    if (status.ok() && call.is_root()) status = CreateDirectories(dir_);
    RETURN_IF_ERROR(Agree(*comm_, status));
    status = Prepare();
    if (status = Agree(*comm_, status); status.ok()) status = Measure();
    comm_->Barrier();
    if (call.is_root()) std::filesystem::remove_all(dir_);
    if (status.ok() && call.is_root()) Print();
    return status;
  }

 private:
  absl::Status Prepare() {
    config_.synthetic_samples = batch_;
    RETURN_IF_ERROR(Validate(config_));
    ASSIGN_OR_RETURN(device_, MakeDeviceFor(config_, *comm_));
    ASSIGN_OR_RETURN(images_, OpenDataset(config_, "", config_.train_split, *comm_));
    ASSIGN_OR_RETURN(const Model model, ModelFor(config_, images_->info(), /*training=*/true));
    ASSIGN_OR_RETURN(
        net_,
        Network::Prepare(model, {batch_, config_.precision, /*training=*/true, FusionOf(config_)}, *device_));
    ASSIGN_OR_RETURN(params_, ParamStore::Create(net_->Params(), *device_, /*training=*/true,
                                                 net_->wants_narrow_params(), {OptimizerState("sgd")}));
    params_->Initialize(config_.seed);
    RETURN_IF_ERROR(net_->Bind(*params_));
    LoaderOptions input;
    net_->Configure(input);
    input.global_batch = batch_;
    input.epochs = 1;
    ASSIGN_OR_RETURN(loader_, MakeLoader(*images_, input));
    absl::StatusOr<Batch> batch = loader_->Next();  // the only one: it stays valid
    if (!batch.ok()) return batch.status();
    images_of_step_ = *batch;
    return absl::OkStatus();
  }

  absl::Status Measure() {
    const std::unique_ptr<Recording> recording = device_->MakeRecording();
    Optimizer optimizer({.momentum = 0.9f}, *params_, *device_);
    optimizer.BeginStep(0.001f);
    const auto step = [&] {
      net_->Load(images_of_step_, config_.seed);
      recording->Run([&] {
        net_->Forward();
        net_->Backward([](size_t) {});
        optimizer.Step();
      });
      device_->Synchronize();
    };
    for (int i = 0; i < 2; ++i) step();  // warms up
    const auto saver = CheckpointSaver::Create(dir_, {.keep = 1}, *params_, *comm_, *device_);
    if (!saver.ok()) return saver.status();
    for (int64_t round = 1; round <= repeats_; ++round) {
      figures_.step.push_back(Milliseconds(step));
      (*saver)->Save(StateOf(2 * round - 1));
      figures_.step_meanwhile.push_back(Milliseconds(step));
      const SaveReport beside_a_step = (*saver)->Finish().at(0);
      if (!beside_a_step.status.ok()) return beside_a_step.status;
      figures_.stall.push_back(Slowest(beside_a_step.stall_ms));
      RETURN_IF_ERROR(TimeFiles(2 * round, **saver));
    }
    return absl::OkStatus();
  }

  // A save, and what it wrote loaded again, with nothing beside it; next to each the bare equivalent.
  absl::Status TimeFiles(int64_t step, CheckpointSaver& saver) {
    comm_->Barrier();
    saver.Save(StateOf(step));
    const SaveReport saved = saver.Finish().at(0);
    if (!saved.status.ok()) return saved.status;
    figures_.save.push_back(Slowest(1e3 * saved.seconds));

    const std::string path = StepDirectory(dir_, step);
    const std::string shard = path + "/" + ShardName(comm_->rank(), comm_->size());
    const std::string bare = absl::StrCat(dir_, "/bare-", comm_->rank());
    bytes_.resize(std::filesystem::file_size(shard));
    absl::Status status;
    figures_.bare_write.push_back(Milliseconds([&] { status = WriteBare(bare, bytes_); }));
    for (const std::string& file : {bare, shard})
      if (status.ok()) status = DropFromCache(file);
    RETURN_IF_ERROR(Agree(*comm_, status));

    const absl::StatusOr<std::unique_ptr<ParamStore>> resumed = params_->MakeEmpty();
    RETURN_IF_ERROR(Agree(*comm_, resumed.status()));
    figures_.restore.push_back(Milliseconds(
        [&] { status = LoadCheckpoint(path, StateOf(step), Match::kExact, **resumed, *comm_).status(); }));
    if (!status.ok()) return status;
    figures_.bare_read.push_back(Milliseconds([&] { status = ReadBare(bare, bytes_.size()); }));
    return Agree(*comm_, status);
  }

  TrainState StateOf(int64_t step) const {
    return {step, {}, {{"model", config_.model}, {"num_classes", config_.num_classes}}};
  }

  // On the slowest rank.
  template <class Work>
  double Milliseconds(const Work& work) {
    comm_->Barrier();
    const auto start = std::chrono::steady_clock::now();
    work();
    return Slowest(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }

  double Slowest(double ms) {
    comm_->AllReduce(&ms, 1, CommType::kF64, ReduceOp::kMax, {}).Wait();
    return ms;
  }

  void Print() const {
    const double bytes = static_cast<double>(bytes_.size()) * comm_->size();
    const auto mb_per_s = [&](const std::vector<double>& ms) { return bytes / Median(ms) / 1e3; };
    const auto median_ratio = [](const std::vector<double>& over, const std::vector<double>& under) {
      std::vector<double> ratios;
      for (size_t i = 0; i < over.size(); ++i) ratios.push_back(over[i] / under[i]);
      return Median(ratios);
    };
    const nlohmann::ordered_json json = {
        {"benchmark", "checkpoint"},
        {"bytes", bytes},
        {"step_ms", Median(figures_.step)},
        {"stall_ms", Median(figures_.stall)},
        {"stall_in_steps", median_ratio(figures_.stall, figures_.step)},
        {"step_while_saving_ms", Median(figures_.step_meanwhile)},
        {"save_mb_per_s", mb_per_s(figures_.save)},
        {"bare_write_mb_per_s", mb_per_s(figures_.bare_write)},
        {"save_of_bare_write", median_ratio(figures_.bare_write, figures_.save)},
        {"restore_mb_per_s", mb_per_s(figures_.restore)},
        {"bare_read_mb_per_s", mb_per_s(figures_.bare_read)},
        {"restore_of_bare_read", median_ratio(figures_.bare_read, figures_.restore)},
        {"settings",
         {{"model", config_.model},
          {"device", NameOf(config_.device)},
          {"batch", batch_},
          {"ranks", comm_->size()},
          {"repeats", repeats_}}},
        {"hardware", device_->Describe()},
        {"versions", {{"deeper", DEEPER_VERSION}, {"compiler", __VERSION__}}}};
    std::printf("%s\n", json.dump(2).c_str());
  }

  RunConfig config_;
  std::string dir_;
  int64_t batch_ = 32;
  int repeats_ = 20;

  Communicator* comm_ = nullptr;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Dataset> images_;
  std::unique_ptr<Network> net_;
  std::unique_ptr<ParamStore> params_;
  std::unique_ptr<Loader> loader_;
  Batch images_of_step_;
  std::vector<std::byte> bytes_;  // as many as this rank's shard has
  Figures figures_;
};

}  // namespace

std::unique_ptr<Command> MakeBenchCheckpoint() {
  return std::make_unique<BenchCheckpointCommand>();
}

}  // namespace deeper
