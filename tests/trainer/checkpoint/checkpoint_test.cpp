#include "trainer/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/exit_code.h"
#include "tests/comm/threads_communicator.h"
#include "tests/trainer/checkpoint/example_params.h"
#include "tests/trainer/checkpoint/save_checkpoint.h"
#include "trainer/checkpoint/checkpoint_saver.h"
#include "trainer/checkpoint/checkpoint_shard.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

// Runs the body once as each of `ranks` ranks.
void OnRanks(int ranks, const std::function<void(Communicator&)>& body) {
  const auto comms = MakeThreadCommunicators(ranks);
  std::vector<std::thread> threads;
  for (const auto& comm : comms) threads.emplace_back([&body, &comm] { body(*comm); });
  for (std::thread& thread : threads) thread.join();
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

TrainState ExampleState(int64_t step) {
  return {step,
          {.dataset_uuid = "c0ffee",
           .seed = 0xFEDCBA9876543210u,
           .global_batch = 32,
           .order = "full",
           .epoch = 2,
           .batch = 17,
           .samples_trained = 12345},
          {{"model", "nin-cifar"}, {"num_classes", 10}, {"dropout", true}}};
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest()
      : directory_(::testing::TempDir() + "checkpoint_" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(directory_);
    params_.Fill(1);
  }
  ~CheckpointTest() override { fs::remove_all(directory_); }

  absl::Status Save(int64_t step, const Retention& retention = {}) {
    return SaveCheckpoint(directory_, ExampleState(step), params_.store(), *single_, retention);
  }
  absl::StatusOr<LoadedState> Load(int64_t step, const TrainState& expected = ExampleState(0),
                                   Match match = Match::kExact) {
    return LoadCheckpoint(StepDirectory(directory_, step), expected, match, params_.store(), *single_);
  }
  absl::StatusOr<CheckpointChoice> Choose(const std::string& resume) {
    return ChooseCheckpoint(directory_, resume, *single_);
  }
  std::string Shard(int64_t step) const { return StepDirectory(directory_, step) + "/" + ShardName(0, 1); }
  std::vector<std::string> Listing() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory_)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  // In place: to write a file anew means to wait for the disk on some file systems.
  static void FlipBit(const std::string& path, uint64_t bit) {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(bit / 8));
    const int byte = file.get() ^ (1 << (bit % 8));
    file.seekp(static_cast<std::streamoff>(bit / 8));
    file.put(static_cast<char>(byte));
    ASSERT_TRUE(file.flush());
  }
  // Damages one byte in the middle of a file.
  static void Damage(const std::string& path) {
    std::string bytes = ReadBytes(path);
    bytes[bytes.size() / 2] ^= 1;
    WriteBytes(path, bytes);
  }

  std::string directory_;
  std::unique_ptr<Communicator> single_ = MakeSingleCommunicator();
  ExampleParams params_;
};

TEST_F(CheckpointTest, AnyNumberOfRanksLoadsWhatAnyOtherSaved) {
  const std::vector<uint32_t> original = params_.Bits();
  const auto load_and_save = [&](int ranks, int64_t from, int64_t to) {
    OnRanks(ranks, [&](Communicator& comm) {
      ExampleParams params;
      if (from == 0) {
        params.Fill(1);
      } else {
        const auto loaded = LoadCheckpoint(StepDirectory(directory_, from), ExampleState(0), Match::kExact,
                                           params.store(), comm);
        ASSERT_TRUE(loaded.ok()) << loaded.status();
        EXPECT_EQ(loaded->step, from);
        EXPECT_EQ(loaded->data, ExampleState(0).data);
        EXPECT_EQ(loaded->config, ExampleState(0).config);
      }
      EXPECT_EQ(params.Bits(), original);
      const absl::Status saved = SaveCheckpoint(directory_, ExampleState(to), params.store(), comm);
      EXPECT_TRUE(saved.ok()) << saved;
    });
  };
  load_and_save(4, 0, 1);
  load_and_save(3, 1, 2);
  load_and_save(1, 2, 3);
  load_and_save(5, 3, 4);
  EXPECT_THAT(VerifyCheckpoint(directory_), IsEmpty());
  params_.Fill(2);
  ASSERT_TRUE(Load(4).ok());
  EXPECT_EQ(params_.Bits(), original);
}

// Tensors of several pieces, in several shards; ranks that read less than others, and one that reads nothing.
TEST_F(CheckpointTest, ALargeStateIsPutTogetherFromPieces) {
  const ExampleParams::Options large{.classes = 120'000};
  ExampleParams original(large);
  original.Fill(3);
  OnRanks(3, [&](Communicator& comm) {
    ExampleParams params(large);
    params.Fill(3);
    EXPECT_TRUE(SaveCheckpoint(directory_, ExampleState(1), params.store(), comm).ok());
  });
  for (const int ranks : {1, 2, 4}) {
    OnRanks(ranks, [&](Communicator& comm) {
      ExampleParams params(large);
      const absl::Status loaded =
          LoadCheckpoint(StepDirectory(directory_, 1), ExampleState(0), Match::kExact, params.store(), comm)
              .status();
      EXPECT_TRUE(loaded.ok()) << loaded;
      EXPECT_TRUE(params.Bits() == original.Bits()) << comm.rank() << " of " << ranks;
    });
  }
}

TEST_F(CheckpointTest, FilesDoNotTellWhetherTheStateIsSharded) {
  const auto path = [&](const std::string& name) { return directory_ + "/" + name; };
  const auto load_and_save = [&](int ranks, bool sharded, const std::string& from, const std::string& to) {
    OnRanks(ranks, [&](Communicator& comm) {
      ExampleParams params(
          {.states = {{"adam_m", "adam_v"}, sharded ? ArenaSlice{comm.rank(), comm.size()} : ArenaSlice{}}});
      ParamStore& store = params.store();
      if (from.empty()) {
        params.Fill(1);
      } else {
        const std::string step = StepDirectory(path(from), 1);
        EXPECT_TRUE(LoadCheckpoint(step, ExampleState(0), Match::kExact, store, comm).ok());
      }
      std::fill_n(store.grads(), store.trained_elements(), 1.0f);  // a step's gradients are in no file
      EXPECT_TRUE(SaveCheckpoint(path(to), ExampleState(1), store, comm).ok());
    });
  };
  const auto expect_same_files = [&](const std::string& a, const std::string& b) {
    for (const auto& entry : fs::directory_iterator(StepDirectory(path(a), 1))) {
      const std::string name = entry.path().filename();
      EXPECT_EQ(ReadBytes(entry.path()), ReadBytes(StepDirectory(path(b), 1) + "/" + name))
          << b << " " << name;
    }
  };
  load_and_save(3, false, "", "whole");
  load_and_save(3, true, "", "sharded");
  expect_same_files("whole", "sharded");
  load_and_save(3, true, "whole", "whole then sharded");
  expect_same_files("whole", "whole then sharded");
  load_and_save(3, false, "sharded", "sharded then whole");
  expect_same_files("whole", "sharded then whole");
  load_and_save(2, true, "sharded", "on two");
  load_and_save(3, true, "on two", "on three again");
  expect_same_files("whole", "on three again");
}

TEST_F(CheckpointTest, ShardsHoldTheFlatStateInTheOrderOfTheTable) {
  OnRanks(2, [&](Communicator& comm) {
    ExampleParams params;
    params.Fill(1);
    EXPECT_TRUE(SaveCheckpoint(directory_, ExampleState(7), params.store(), comm).ok());
  });
  std::vector<float> state, part;
  for (int shard = 0; shard < 2; ++shard) {
    const auto file = Hdf5File::Open(StepDirectory(directory_, 7) + "/" + ShardName(shard, 2));
    ASSERT_TRUE(file.ok()) << file.status();
    int64_t first = -1;
    ASSERT_TRUE(file->ReadAttribute("first_element", &first).ok());
    EXPECT_EQ(first, static_cast<int64_t>(state.size()));
    ASSERT_TRUE(file->Read("state", &part).ok());
    state.insert(state.end(), part.begin(), part.end());
  }
  const std::vector<uint32_t> expected = params_.Bits();
  ASSERT_EQ(state.size(), expected.size());
  EXPECT_EQ(std::memcmp(state.data(), expected.data(), expected.size() * sizeof(float)), 0);

  const CheckpointManifest manifest = *ReadCheckpointManifest(StepDirectory(directory_, 7));
  EXPECT_EQ(manifest.tensors.front().ToString(), "conv1.conv.weight [12, 5, 3, 3]");
  EXPECT_EQ(manifest.tensors.back().role, kStatisticRole);
  EXPECT_EQ(manifest.elements(), static_cast<int64_t>(expected.size()));
}

// A flip each, at random over all bytes of shards and manifest. DEEPER_BIT_FLIPS=10000 for more of them.
TEST_F(CheckpointTest, EveryFlippedBitIsFoundAndNamed) {
  OnRanks(3, [&](Communicator& comm) {
    ExampleParams params;
    params.Fill(1);
    EXPECT_TRUE(SaveCheckpoint(directory_, ExampleState(1), params.store(), comm).ok());
  });
  const std::string step = StepDirectory(directory_, 1);
  const std::string manifest = CheckpointManifestPath(step);
  std::vector<std::string> paths = {manifest};
  for (int shard = 0; shard < 3; ++shard) paths.push_back(step + "/" + ShardName(shard, 3));
  uint64_t bits = 0;
  for (const std::string& path : paths) bits += 8 * fs::file_size(path);

  const std::vector<uint32_t> before = params_.Bits();
  const char* const wanted = std::getenv("DEEPER_BIT_FLIPS");
  const int flips = wanted == nullptr ? 500 : std::atoi(wanted);
  Rng rng(1, RandomStream("flips"), 0, 0);
  for (int i = 0; i < flips; ++i) {
    uint64_t bit = ((uint64_t{rng.Next()} << 32) | rng.Next()) % bits;
    auto path = paths.begin();
    for (; bit >= 8 * fs::file_size(*path); ++path) bit -= 8 * fs::file_size(*path);
    FlipBit(*path, bit);
    const std::vector<std::string> problems = VerifyCheckpoint(step);
    ASSERT_THAT(problems, SizeIs(1)) << *path << " bit " << bit;
    ASSERT_THAT(problems[0], HasSubstr(*path));
    if (*path != manifest) {
      const auto shard = std::distance(paths.begin(), path) - 1;
      const StateRange range = ShardRange(static_cast<int64_t>(before.size()), shard, 3);
      ASSERT_THAT(problems[0], HasSubstr(absl::StrCat("; it holds elements ", range.begin, " to ", range.end,
                                                      " of the state")));
    }
    ASSERT_EQ(Choose("latest").status().code(), absl::StatusCode::kDataLoss);
    ASSERT_FALSE(Load(1).ok());
    ASSERT_EQ(params_.Bits(), before);
    FlipBit(*path, bit);
  }
  EXPECT_THAT(VerifyCheckpoint(step), IsEmpty());
  std::printf("%d of %" PRIu64 " bits flipped, one at a time: each found and named, nothing loaded\n", flips,
              bits);
}

TEST_F(CheckpointTest, ATruncatedOrMissingShardIsNamedAndNothingChanges) {
  OnRanks(4, [&](Communicator& comm) {
    ExampleParams params;
    EXPECT_TRUE(SaveCheckpoint(directory_, ExampleState(1), params.store(), comm).ok());
  });
  const std::string path = StepDirectory(directory_, 1) + "/shard-00003-of-00004.h5";
  const auto load_on_two = [&](const std::string& message) {
    OnRanks(2, [&](Communicator& comm) {
      ExampleParams params;
      params.Fill(1);
      const auto loaded =
          LoadCheckpoint(StepDirectory(directory_, 1), ExampleState(0), Match::kExact, params.store(), comm);
      EXPECT_THAT(Message(loaded.status()),
                  AllOf(HasSubstr("rank 1: "), HasSubstr(path), HasSubstr(message)));
      EXPECT_EQ(params.Bits(), params_.Bits());
    });
  };
  fs::resize_file(path, fs::file_size(path) - 1);
  load_on_two("bytes, its manifest says");
  fs::remove(path);
  load_on_two("cannot open");
}

TEST_F(CheckpointTest, AnotherNetworkIsRefusedWithItsDifferences) {
  ASSERT_TRUE(Save(1).ok());
  ExampleParams other({.classes = 20, .aux = false});
  const absl::Status status =
      LoadCheckpoint(StepDirectory(directory_, 1), ExampleState(0), Match::kExact, other.store(), *single_)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("fc.bias [10] in the file is fc.bias [20] in the model"),
                                     HasSubstr("aux1.fc2.weight [10, 7] is not in the model"),
                                     Not(HasSubstr("conv1.conv.weight"))));
}

TEST_F(CheckpointTest, TheStateOfAnotherOptimizerIsRefused) {
  OnRanks(2, [&](Communicator& comm) {
    ExampleParams params({.states = {{"adam_m", "adam_v"}}});
    params.Fill(1);
    EXPECT_TRUE(SaveCheckpoint(directory_, ExampleState(1), params.store(), comm).ok());
  });
  const std::vector<uint32_t> before = params_.Bits();
  const absl::Status status = Load(1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status),
              HasSubstr("is of another optimizer: it keeps adam_m and adam_v, and this run needs momentum; "
                        "resume with its --optimizer"));
  EXPECT_EQ(params_.Bits(), before);
}

TEST_F(CheckpointTest, AnotherRunIsRefusedWithTheFieldsThatDiffer) {
  ASSERT_TRUE(Save(1).ok());
  const std::vector<uint32_t> before = params_.Bits();
  TrainState other = ExampleState(0);
  other.data.dataset_uuid = "decaf";
  other.data.seed = 5;
  other.data.global_batch = 64;
  other.config["dropout"] = false;
  other.config["stem"] = "small";
  const absl::Status status = Load(1, other).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(status),
              AllOf(HasSubstr(R"(dataset was "c0ffee" and is "decaf")"),
                    HasSubstr("seed was 18364758544493064720 and is 5"),
                    HasSubstr("global_batch was 32 and is 64"), HasSubstr("dropout was true and is false"),
                    HasSubstr(R"(stem was null and is "small")"), Not(HasSubstr("num_classes"))));
  EXPECT_EQ(params_.Bits(), before);
}

TEST_F(CheckpointTest, HarmlessDifferencesAreForced) {
  TrainState saved = ExampleState(1);
  saved.config["image_size"] = 224;
  TrainState other = saved;
  other.config["image_size"] = 192;
  other.data.seed = 5;
  const auto save = [&](int64_t step, int64_t batch) {
    saved.step = step;
    saved.data.batch = batch;
    EXPECT_TRUE(SaveCheckpoint(directory_, saved, params_.store(), *single_).ok());
  };
  save(1, 17);
  save(2, 0);
  EXPECT_FALSE(Load(2, other).ok());
  const absl::StatusOr<LoadedState> forced = Load(2, other, Match::kForced);
  ASSERT_TRUE(forced.ok()) << forced.status();
  EXPECT_THAT(forced->warnings,
              ElementsAre(HasSubstr("seed was"), HasSubstr("image_size was 224 and is 192")));
  EXPECT_EQ(forced->data.seed, 5u) << "it goes on with the new one";
  EXPECT_THAT(Message(Load(1, other, Match::kForced).status()),
              AllOf(HasSubstr("seed was"), Not(HasSubstr("image_size"))))
      << "in mid-epoch another order repeats and misses samples";
  other = saved;
  other.data.global_batch = 64;
  other.config["model"] = "nin";
  EXPECT_THAT(Message(Load(2, other, Match::kForced).status()),
              AllOf(HasSubstr("global_batch was"), HasSubstr("model was")));
}

// Tries to save step 2 in a child whose files may not grow beyond `limit` bytes.
absl::StatusCode SaveWithFileSizeLimit(rlim_t limit, const std::function<absl::Status()>& save) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limits{limit, limit};
    setrlimit(RLIMIT_FSIZE, &limits);
    _exit(static_cast<int>(save().code()));
  }
  int result = 0;
  waitpid(child, &result, 0);
  return WIFEXITED(result) ? static_cast<absl::StatusCode>(WEXITSTATUS(result)) : absl::StatusCode::kUnknown;
}

TEST_F(CheckpointTest, AFullDiskLeavesTheOldCheckpointAndNothingElse) {
  ASSERT_TRUE(Save(1).ok());
  const auto shard_bytes = static_cast<rlim_t>(fs::file_size(Shard(1)));
  const auto save = [&] { return Save(2, {.keep = 1}); };
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{1000}, shard_bytes / 2, shard_bytes - 1}) {
    EXPECT_EQ(SaveWithFileSizeLimit(limit, save), absl::StatusCode::kResourceExhausted) << limit;
    EXPECT_THAT(Listing(), ElementsAre("step-000000001")) << limit;
    EXPECT_THAT(VerifyCheckpoint(directory_), IsEmpty());
  }
  EXPECT_EQ(SaveWithFileSizeLimit(RLIM_INFINITY, save), absl::StatusCode::kOk);
  EXPECT_THAT(Listing(), ElementsAre("step-000000002"));
}

TEST_F(CheckpointTest, AFailureOfOneRankIsEveryRanks) {
  ASSERT_TRUE(Save(1).ok());
  OnRanks(3, [&](Communicator& comm) {
    ExampleParams params;
    const std::string mine = comm.rank() == 2 ? directory_ + "/elsewhere" : directory_;
    const absl::Status status = SaveCheckpoint(mine, ExampleState(2), params.store(), comm, {1});
    EXPECT_THAT(Message(status), AllOf(HasSubstr("rank 2: "), HasSubstr("elsewhere")));
  });
  EXPECT_THAT(Listing(), ElementsAre("step-000000001"));
}

TEST_F(CheckpointTest, ADirectoryThatCannotBeWrittenIsNamed) {
  WriteBytes(directory_, "a file");
  directory_ += "/below";
  EXPECT_THAT(Message(Save(1)), AllOf(HasSubstr("cannot create"), HasSubstr(directory_)));
  EXPECT_THAT(Message(OpenCheckpointDirectory(directory_).status()), HasSubstr("cannot create directory"));
  fs::remove(fs::path(directory_).parent_path());
}

TEST_F(CheckpointTest, TheNewestStay) {
  for (int64_t step = 1; step <= 5; ++step) ASSERT_TRUE(Save(step, {.keep = 2}).ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000004", "step-000000005"));
}

TEST_F(CheckpointTest, RetentionLeavesLaterStepsAndDamagedOnesAlone) {
  for (const int64_t step : {2, 3, 8, 9}) ASSERT_TRUE(Save(step).ok());
  fs::remove(CheckpointManifestPath(StepDirectory(directory_, 3)));
  ASSERT_TRUE(Save(4, {.keep = 1}).ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000003", "step-000000004", "step-000000008", "step-000000009"));
}

TEST_F(CheckpointTest, MilestonesAndTheBestStay) {
  for (int64_t step = 1; step <= 8; ++step) {
    TrainState state = ExampleState(step);
    if (step % 2 == 0) state.top1 = step == 2 ? 0.75 : 0.5;
    ASSERT_TRUE(
        SaveCheckpoint(directory_, state, params_.store(), *single_, {.keep = 1, .keep_every = 3}).ok());
  }
  EXPECT_THAT(Listing(), ElementsAre("step-000000002", "step-000000003", "step-000000006", "step-000000008"));
  EXPECT_EQ(ReadCheckpointManifest(StepDirectory(directory_, 2))->top1, 0.75);
  EXPECT_EQ(ReadCheckpointManifest(StepDirectory(directory_, 3))->top1, std::nullopt);
}

TEST_F(CheckpointTest, NothingIsRemovedUnlessTheNewestReadsBackRight) {
  for (const int64_t step : {1, 2}) ASSERT_TRUE(Save(step).ok());
  Damage(Shard(2));
  EXPECT_THAT(Message(RemoveOldCheckpoints(directory_, 2, {.keep = 1})), HasSubstr(Shard(2)));
  EXPECT_THAT(Listing(), ElementsAre("step-000000001", "step-000000002"));
}

// The state is that of the call of Save, whatever training does to it meanwhile; a third save waits for the
// first one's memory.
TEST_F(CheckpointTest, TrainingGoesOnWhileCheckpointsAreWritten) {
  std::map<int64_t, std::vector<uint32_t>> states;
  OnRanks(2, [&](Communicator& comm) {
    const std::unique_ptr<Device> device = MakeCpuDevice(1);
    ExampleParams params;
    const auto saver = *CheckpointSaver::Create(directory_, {}, params.store(), comm, *device);
    for (int64_t step = 1; step <= 5; ++step) {
      params.Fill(static_cast<uint64_t>(step));
      if (comm.rank() == 0) states[step] = params.Bits();
      saver->Save(ExampleState(step));
    }
    params.Fill(6);
    std::vector<int64_t> steps;
    for (const SaveReport& report : saver->Finish()) {
      EXPECT_TRUE(report.status.ok()) << report.status;
      EXPECT_LE(report.wait_ms, report.stall_ms);
      EXPECT_LE(report.stall_ms, 1e3 * report.seconds);
      steps.push_back(report.step);
    }
    EXPECT_THAT(steps, ElementsAre(1, 2, 3, 4, 5));
    EXPECT_THAT(saver->TakeReports(), IsEmpty());
  });
  for (const auto& [step, bits] : states) {
    ASSERT_TRUE(Load(step).ok());
    EXPECT_EQ(params_.Bits(), bits) << step;
  }
}

TEST_F(CheckpointTest, ASaveThatFailsSparesTheNext) {
  const std::unique_ptr<Device> device = MakeCpuDevice(1);
  const auto saver = *CheckpointSaver::Create(directory_, {.keep = 1}, params_.store(), *single_, *device);
  ASSERT_TRUE(Save(1).ok());
  saver->Save(ExampleState(2));
  EXPECT_TRUE(saver->Finish().at(0).status.ok());
  params_.Fill(2);
  saver->Save(ExampleState(2));
  params_.Fill(3);
  saver->Save(ExampleState(3));
  const std::vector<SaveReport> reports = saver->Finish();
  ASSERT_THAT(reports, SizeIs(2));
  EXPECT_THAT(Message(reports[0].status), HasSubstr("never overwritten"));
  EXPECT_EQ(ExitCodeOf(reports[0].status), ExitCode::kCheckpoint);
  EXPECT_TRUE(reports[1].status.ok());
  EXPECT_THAT(Listing(), ElementsAre("step-000000003"));
}

TEST_F(CheckpointTest, AStepIsNeverOverwritten) {
  ASSERT_TRUE(Save(1).ok());
  EXPECT_TRUE(Save(1).ok()) << "the same state again";
  const std::string before = ReadBytes(Shard(1));
  params_.Fill(2);
  const absl::Status status = Save(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(Message(status), HasSubstr("step-000000001 is there already"));
  EXPECT_EQ(ReadBytes(Shard(1)), before);
  EXPECT_THAT(Listing(), ElementsAre("step-000000001"));
}

TEST_F(CheckpointTest, LatestFallsBackToTheNewestValidOne) {
  EXPECT_EQ(Choose("latest")->path, "");
  for (int64_t step = 1; step <= 3; ++step) ASSERT_TRUE(Save(step).ok());
  EXPECT_EQ(Choose("latest")->path, StepDirectory(directory_, 3));
  EXPECT_THAT(Choose("latest")->warnings, IsEmpty());

  Damage(Shard(3));
  fs::remove(CheckpointManifestPath(StepDirectory(directory_, 2)));
  const CheckpointChoice choice = *Choose("latest");
  EXPECT_EQ(choice.path, StepDirectory(directory_, 1));
  EXPECT_THAT(choice.warnings, ElementsAre(AllOf(HasSubstr("cannot be used"), HasSubstr(Shard(3))),
                                           AllOf(HasSubstr("cannot be used"), HasSubstr("step-000000002"))));
  EXPECT_EQ(FindCheckpoint(directory_)->path, choice.path);

  Damage(CheckpointManifestPath(StepDirectory(directory_, 1)));
  EXPECT_EQ(Choose("latest").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(Choose("latest").status()), HasSubstr("no checkpoint is left in " + directory_));
}

TEST_F(CheckpointTest, AnExplicitStepIsThatOneOrAnError) {
  for (int64_t step = 1; step <= 3; ++step) ASSERT_TRUE(Save(step).ok());
  EXPECT_EQ(Choose("3")->path, StepDirectory(directory_, 3));
  EXPECT_EQ(Choose("1")->path, StepDirectory(directory_, 1));
  EXPECT_THAT(Choose("1")->warnings, ElementsAre(HasSubstr("also holds later steps, up to 3")));
  EXPECT_EQ(Choose("4").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(Choose("4").status()),
              AllOf(HasSubstr("no checkpoint of step 4"), HasSubstr("it holds steps 3, 2, 1")));
  Damage(Shard(2));
  EXPECT_EQ(Choose("2").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Message(Choose("2").status()), HasSubstr(Shard(2)));
}

TEST_F(CheckpointTest, NeverChoosesNoneAndSaysWhatIsThere) {
  EXPECT_THAT(Choose("never")->warnings, IsEmpty());
  ASSERT_TRUE(Save(6).ok());
  EXPECT_EQ(Choose("never")->path, "");
  EXPECT_THAT(Choose("never")->warnings, ElementsAre(HasSubstr("up to step 6")));
  EXPECT_THAT(Message(Choose("newest").status()), HasSubstr("'newest'"));
}

TEST_F(CheckpointTest, RankZeroChoosesForAll) {
  ASSERT_TRUE(Save(1).ok());
  OnRanks(3, [&](Communicator& comm) {
    // Only rank 0's view counts.
    const auto choice = ChooseCheckpoint(comm.rank() == 0 ? directory_ : "/nonexistent", "latest", comm);
    EXPECT_EQ(choice->path, StepDirectory(directory_, 1));
  });
}

TEST_F(CheckpointTest, OpeningTheDirectoryLocksItAndRemovesLeftovers) {
  ASSERT_TRUE(Save(1).ok());
  fs::create_directories(UnfinishedStepDirectory(directory_, 2));
  WriteBytes(UnfinishedStepDirectory(directory_, 2) + "/" + ShardName(0, 1), "half");
  const absl::StatusOr<File> lock = OpenCheckpointDirectory(directory_);
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_THAT(Listing(), ElementsAre("step-000000001"));
  EXPECT_THAT(Message(OpenCheckpointDirectory(directory_).status()), HasSubstr("in use"));
}

TEST_F(CheckpointTest, VerifyNamesEveryProblem) {
  EXPECT_THAT(VerifyCheckpoint(directory_), ElementsAre(HasSubstr("is not a checkpoint and holds none")));
  ASSERT_TRUE(Save(1).ok());
  ASSERT_TRUE(Save(2).ok());
  EXPECT_THAT(VerifyCheckpoint(directory_), IsEmpty());
  Damage(Shard(1));
  fs::remove(Shard(2));
  EXPECT_THAT(VerifyCheckpoint(directory_), ElementsAre(HasSubstr(Shard(1)), HasSubstr(Shard(2))));
}

TEST(CheckpointManifest, HasTheDocumentedFields) {
  const TrainState state = ExampleState(7);
  const CheckpointManifest manifest{
      7,
      state.data,
      state.config,
      {{4096, {0x12, 0x34}}},
      {{"w", {2, 3}, kWeightRole, 0, 6}, {"w", {2, 3}, "momentum", 6, 6}, {"m", {2}, kStatisticRole, 12, 2}}};
  const nlohmann::json json = nlohmann::json::parse(RenderCheckpointManifest(manifest));
  EXPECT_EQ(json["format"], "deeper-checkpoint");
  EXPECT_EQ(json["format_version"], 1);
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["world_size"], 1);
  EXPECT_EQ(json["data"], nlohmann::json::parse(R"({"dataset_uuid": "c0ffee", "seed": 18364758544493064720,
      "global_batch": 32, "order": "full", "epoch": 2, "batch": 17, "samples_trained": 12345})"));
  EXPECT_EQ(json["config"], state.config);
  EXPECT_EQ(json["shards"], nlohmann::json::parse(R"([{"file": "shard-00000-of-00001.h5", "bytes": 4096,
      "xxh3_128": "00000000000000120000000000000034"}])"));
  EXPECT_EQ(json["tensors"], nlohmann::json::parse(R"([
      {"name": "w", "role": "weight", "shape": [2, 3], "first": 0, "count": 6},
      {"name": "w", "role": "momentum", "shape": [2, 3], "first": 6, "count": 6},
      {"name": "m", "role": "statistic", "shape": [2], "first": 12, "count": 2}])"));
}

TEST(CheckpointManifest, AnotherVersionIsNamed) {
  CheckpointManifest manifest{1, {}, nlohmann::json::object(), {{}}, {{"w", {2}, kWeightRole, 0, 2}}};
  std::string text = RenderCheckpointManifest(manifest);
  EXPECT_TRUE(ParseCheckpointManifest(text, "m").ok());
  const std::string version = R"("format_version": 1)";
  text.replace(text.find(version), version.size(), R"("format_version": 2)");
  EXPECT_EQ(Message(ParseCheckpointManifest(text, "m").status()),
            "m is of checkpoint format version 2; this build reads version 1");
}

TEST(CheckpointManifest, ATableThatDoesNotAddUpIsRefused) {
  CheckpointManifest manifest{1, {}, nlohmann::json::object(), {{}}, {{"w", {2}, kWeightRole, 0, 3}}};
  EXPECT_THAT(Message(ParseCheckpointManifest(RenderCheckpointManifest(manifest), "m").status()),
              HasSubstr("do not fit together"));
}

TEST(CheckpointManifest, ShardsCoverTheStateOnce) {
  for (const int64_t shards : {1, 3, 7}) {
    int64_t next = 0;
    for (int64_t shard = 0; shard < shards; ++shard) {
      const StateRange range = ShardRange(1000, shard, shards);
      EXPECT_EQ(range.begin, next);
      next = range.end;
    }
    EXPECT_EQ(next, 1000);
  }
}

}  // namespace
}  // namespace deeper
