#include "trainer/checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "data/io/hdf5_file.h"
#include "kernels/base/exit_code.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "trainer/checkpoint/checkpoint_shard.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

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

// Tensors of several pieces in several shards; some ranks read less than others, and one reads nothing.
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

TEST_F(CheckpointTest, ManyRanksWriteFewerShardsOfTheSameState) {
  OnRanks(12, [&](Communicator& comm) {
    ExampleParams params;
    params.Fill(7);
    EXPECT_TRUE(SaveCheckpoint(directory_, ExampleState(1), params.store(), comm).ok());
  });
  EXPECT_TRUE(fs::exists(StepDirectory(directory_, 1) + "/" + ShardName(7, 8)));
  EXPECT_THAT(VerifyCheckpoint(directory_), IsEmpty());
  ASSERT_TRUE(Load(1).ok());
  ExampleParams expected;
  expected.Fill(7);
  EXPECT_EQ(params_.Bits(), expected.Bits());
}

// One random flip at a time in the bytes of shards and manifest. DEEPER_BIT_FLIPS=10000 makes more of them.
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
  EXPECT_THAT(
      Message(status),
      HasSubstr(
          "was saved with another optimizer: it contains adam_m and adam_v, and this run needs momentum; "
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
                    HasSubstr(R"(stem was none and is "small")"), Not(HasSubstr("num_classes"))));
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
  EXPECT_EQ(forced->data.seed, 5u) << "it continues with the new one";
  EXPECT_THAT(Message(Load(1, other, Match::kForced).status()),
              AllOf(HasSubstr("seed was"), Not(HasSubstr("image_size"))))
      << "within an epoch another order repeats and misses samples";
  other = saved;
  other.data.global_batch = 64;
  other.config["model"] = "nin";
  EXPECT_THAT(Message(Load(2, other, Match::kForced).status()),
              AllOf(HasSubstr("global_batch was"), HasSubstr("model was")));
}

TEST_F(CheckpointTest, AnotherImageSize) {
  TrainState saved = ExampleState(1);
  saved.config["image_size"] = 224;
  ASSERT_TRUE(SaveCheckpoint(directory_, saved, params_.store(), *single_).ok());
  TrainState other = saved;
  other.config["image_size"] = 192;
  EXPECT_THAT(
      Message(Load(1, other).status()),
      HasSubstr("image_size was 224 and is 192; to continue at one of these sizes, give --image_size"));
  const absl::StatusOr<LoadedState> resized = Load(1, other, Match::kResized);
  ASSERT_TRUE(resized.ok()) << resized.status();
  EXPECT_EQ(resized->config["image_size"], 224);
  other.config["mean"] = {0.5};
  EXPECT_THAT(Message(Load(1, other, Match::kResized).status()),
              AllOf(HasSubstr("mean was"), Not(HasSubstr("image_size"))));
}

// They are in the config only if they are set.
TEST_F(CheckpointTest, APresetMustNotGetLost) {
  TrainState saved = ExampleState(1);
  saved.config["val_preset"] = "torchvision";
  saved.config["elastic"] = {{"slices", 8}};
  ASSERT_TRUE(SaveCheckpoint(directory_, saved, params_.store(), *single_).ok());
  EXPECT_TRUE(Load(1, saved).ok());
  EXPECT_THAT(Message(Load(1, ExampleState(1)).status()),
              AllOf(HasSubstr(R"(val_preset was "torchvision" and is none)"),
                    HasSubstr(R"(elastic was {"slices":8} and is none)")));
  EXPECT_TRUE(Load(1, ExampleState(1), Match::kForced).ok());
}

TEST_F(CheckpointTest, WithoutBlurPoolWereThoseOf010) {
  ASSERT_TRUE(Save(1).ok());
  TrainState now = ExampleState(1);
  now.config["blur_pool"] = false;
  EXPECT_TRUE(Load(1, now).ok());
  now.config["blur_pool"] = true;
  EXPECT_THAT(Message(Load(1, now, Match::kForced).status()), HasSubstr("blur_pool was false and is true"));
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

// The saved state is that at the call of Save; training changes it meanwhile. A third save waits for memory.
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

}  // namespace
}  // namespace deeper
