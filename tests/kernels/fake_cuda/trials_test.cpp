// The choices of the tuner (kernels/cuda/plans/autotune.h) from scripted algorithms: slow ones, and those
// that fail, hang, fault or compute wrong results.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"
#include "kernels/cuda/plans/autotune.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

struct Script {
  std::string name;
  int steps = 1;           // its time on the GPU
  size_t workspace = 0;    // bytes
  bool own = false;        // needs a check
  bool builds = true;      // false: the proposal does not work
  bool has_text = true;    // can be serialized
  absl::Status enqueue{};  // what its launch returns
  void (*runs)() = nullptr;
};

class ScriptedAlgorithm final : public Algorithm {
 public:
  ScriptedAlgorithm(const Script& script, int& launches) : script_(script), launches_(launches) {
    workspace_bytes_ = script.workspace;
  }
  bool needs_check() const override { return script_.own; }
  absl::StatusOr<std::string> Serialize() const override {
    if (!script_.has_text) return Unimplemented("no text");
    return script_.name;
  }
  absl::Status Enqueue(const PlanOperands& operands, Stream stream) override {
    ++launches_;
    EXPECT_TRUE(script_.workspace == 0 || operands.workspace != nullptr);
    if (!script_.enqueue.ok()) return script_.enqueue;
    for (int i = 0; i < script_.steps; ++i) {
      const auto work = [runs = script_.runs] {
        if (runs != nullptr) runs();
      };
      if (fake_cuda::Launch(static_cast<cudaStream_t>(stream.native), script_.name, work) != cudaSuccess)
        return Internal("no launch");
    }
    return absl::OkStatus();
  }

 private:
  const Script script_;
  int& launches_;
};

class ScriptedChoice final : public AlgorithmChoice {
 public:
  explicit ScriptedChoice(std::vector<Script> scripts)
      : launches(scripts.size()), scripts_(std::move(scripts)) {}
  absl::Status Ask() override { return scripts_.empty() ? Unimplemented("no proposals") : absl::OkStatus(); }
  size_t size() const override { return scripts_.size(); }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t i) const override {
    ++builds;
    int gpu = -1;
    EXPECT_EQ(cudaGetDevice(&gpu), cudaSuccess);
    EXPECT_EQ(gpu, expected_gpu);
    if (wait_for_another) {
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
      while (builds < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    }
    if (!scripts_[i].builds) return Unimplemented(scripts_[i].name, " does not work");
    return std::make_unique<ScriptedAlgorithm>(scripts_[i], launches[i]);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string&) const override {
    return InvalidArgument("not this library's");
  }

  mutable std::vector<int> launches;    // of each
  mutable std::atomic<int> builds = 0;  // that have started
  bool wait_for_another = false;        // the first build ends when another has started
  int expected_gpu = 0;                 // current in the thread that builds

 private:
  const std::vector<Script> scripts_;
};

class Tuner : public ::testing::Test {
 protected:
  void Open(uint64_t seed, size_t memory_bytes = size_t{1} << 26) {
    fake_cuda::Reset({.seed = seed, .memory_bytes = memory_bytes});
    device_ = MakeCudaDevice({}).value();
  }
  void SetUp() override { Open(1); }  // work runs at once
  void TearDown() override {
    device_.reset();
    fake_cuda::Reset({});
  }

  absl::StatusOr<std::string> Fastest(AlgorithmChoice& choice, int contenders = 24,
                                      std::chrono::seconds limit = std::chrono::seconds(60)) {
    const AlgorithmTrial trial = [this](Algorithm&, const PlanOperands&,
                                        const std::function<double()>& time) -> absl::StatusOr<double> {
      if (!checked_.ok()) return checked_;
      return time();
    };
    ASSIGN_OR_RETURN(const auto fastest, ChooseFastest(choice, "a problem", {.a = 4096, .b = 64, .d = 64},
                                                       *device_, {contenders, limit}, trial));
    return fastest->Serialize();
  }

  std::unique_ptr<Device> device_;
  absl::Status checked_;  // what the check of own algorithms finds
};
using TunerDeathTest = Tuner;

TEST_F(Tuner, TheFastestIsChosen) {
  ScriptedChoice choice({{"slow", 3}, {"fast", 2}, {"also slow", 3}});
  EXPECT_EQ(*Fastest(choice), "fast");
}

TEST_F(Tuner, WhatIsTwiceAsSlowIsTimedOnce) {
  ScriptedChoice choice({{"fast", 1}, {"slow", 9}, {"fair", 2}});
  EXPECT_EQ(*Fastest(choice), "fast");
  EXPECT_EQ(choice.launches, (std::vector<int>{1 + 3 * 5, 1 + 5, 1 + 3 * 5}));
}

TEST_F(Tuner, WithoutRivalsNothingIsTimed) {
  ScriptedChoice choice({{"first", 9}, {"second", 1}});
  EXPECT_EQ(*Fastest(choice, 1), "first");
  EXPECT_EQ(choice.launches, (std::vector<int>{1, 0}));
}

TEST_F(Tuner, BuildsAtTheSameTime) {
  ScriptedChoice choice({{"a", 2}, {"b", 1}});
  choice.wait_for_another = true;
  EXPECT_EQ(*Fastest(choice), "b");
  EXPECT_EQ(choice.builds, 2);
}

TEST_F(Tuner, BuildsForItsOwnGpu) {
  device_.reset();
  fake_cuda::Reset({.seed = 1, .devices = 2});
  device_ = MakeCudaDevice({.index = 1, .plan_cache = {}}).value();
  ScriptedChoice choice({{"a", 2}, {"b", 1}});
  choice.wait_for_another = true;
  choice.expected_gpu = 1;
  EXPECT_EQ(*Fastest(choice), "b");
}

TEST_F(Tuner, BuildsOnlyTheFirstWithoutRivals) {
  ScriptedChoice choice({{.name = "unbuilt", .builds = false}, {"a"}, {"b"}});
  EXPECT_EQ(*Fastest(choice, 1), "a");
  EXPECT_EQ(choice.builds, 2);
}

TEST_F(Tuner, ConsidersEveryProposal) {
  for (size_t fastest : {0, 7, 8, 16}) {
    std::vector<Script> scripts(17, {.name = {}, .steps = 3});
    for (size_t i = 0; i < scripts.size(); ++i) scripts[i].name = absl::StrCat("algorithm ", i);
    scripts[fastest].steps = 1;
    ScriptedChoice choice(scripts);
    EXPECT_EQ(*Fastest(choice), absl::StrCat("algorithm ", fastest));
  }
}

TEST_F(Tuner, TheSameProposalIsTimedOnce) {
  ScriptedChoice choice({{"a", 2}, {"a", 2}, {"b", 1}});
  EXPECT_EQ(*Fastest(choice), "b");
  EXPECT_EQ(choice.launches[1], 0);
}

TEST_F(Tuner, WhatCannotBeSavedMayWin) {
  ScriptedChoice choice({{"a", 2}, {.name = "b", .steps = 1, .has_text = false}});
  EXPECT_EQ(Fastest(choice).status().message(), "no text");
}

TEST_F(Tuner, WhatFailsIsLeftOut) {
  ScriptedChoice choice({{.name = "unbuilt", .builds = false},
                         {.name = "refused", .enqueue = Internal("refused")},
                         {.name = "too much workspace", .workspace = size_t{1} << 30},
                         {.name = "works", .steps = 7, .workspace = 4096}});
  EXPECT_EQ(*Fastest(choice), "works");
}

TEST_F(Tuner, SaysWhyNothingWorks) {
  ScriptedChoice unbuilt({{.name = "first", .builds = false}, {.name = "second", .builds = false}});
  EXPECT_EQ(Fastest(unbuilt).status(), absl::UnimplementedError("first does not work"));
  EXPECT_EQ(ChooseFirst(unbuilt).status(), absl::UnimplementedError("first does not work"));
  ScriptedChoice refused({{.name = "refused", .enqueue = Internal("refused")}});
  EXPECT_EQ(Fastest(refused).status(), absl::UnimplementedError("none of the proposed algorithms runs"));
  ScriptedChoice none({});
  EXPECT_EQ(Fastest(none).status(), absl::UnimplementedError("no proposals"));
  EXPECT_EQ(ChooseFirst(none).status(), absl::UnimplementedError("no proposals"));
}

TEST_F(Tuner, OperandsThatDoNotFitAreResourceExhausted) {
  device_.reset();
  Open(1, 2048);
  ScriptedChoice choice({{"works"}});
  const absl::Status status = Fastest(choice).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("not enough GPU memory to tune: it needs 4096 bytes, and 2048 are free"));
}

TEST_F(Tuner, OneThatIsWrongIsExcluded) {
  ScriptedChoice choice({{.name = "own", .steps = 1, .own = true}, {"library", 9}});
  checked_ = Internal("at pixel 3 it has 1, and the library has 2");
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(*Fastest(choice), "library");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "a problem: own is excluded: at pixel 3 it has 1, and the library has 2\n");
  EXPECT_EQ(choice.launches[0], 0);
  checked_ = absl::OkStatus();
  EXPECT_EQ(*Fastest(choice), "own");
}

// As where cuDNN has no engine and deeper's kernels have one.
TEST_F(Tuner, OneOfTwoChoicesIsEnough) {
  const auto both = [](std::vector<Script> first, std::vector<Script> second) {
    return BothChoices(std::make_unique<ScriptedChoice>(std::move(first)),
                       std::make_unique<ScriptedChoice>(std::move(second)));
  };
  BothChoices first_only = both({{"first"}}, {}), second_only = both({}, {{"second"}}), none = both({}, {});
  EXPECT_EQ(*Fastest(first_only, 1), "first");
  EXPECT_EQ(*Fastest(second_only, 1), "second");
  EXPECT_EQ(Fastest(none).status(), absl::UnimplementedError("no proposals"));
  BothChoices broken = both({{.name = "unbuilt", .builds = false}}, {{"second"}});
  EXPECT_EQ(*Fastest(broken, 1), "second");
}

TEST_F(TunerDeathTest, OneThatHangsIsNamed) {
  for (const bool own : {false, true}) {
    ScriptedChoice choice({{.name = "deeper", .own = own, .runs = [] {
                              while (true) pause();
                            }}});
    EXPECT_DEATH((void)Fastest(choice, 24, std::chrono::seconds(1)),
                 own ? "it did not within 1000 ms \\(on trial: deeper for a problem\\)"
                     : "it did not within 1000 ms \\(on trial: a library algorithm for a problem\\)");
  }
}

TEST_F(TunerDeathTest, OneThatFaultsIsNamed) {
  device_.reset();
  Open(0);  // work runs when the host waits for it
  ScriptedChoice choice(
      {{.name = "deeper", .own = true, .runs = [] { fake_cuda::Lose(cudaErrorIllegalAddress); }}});
  EXPECT_DEATH((void)Fastest(choice), "cudaErrorIllegalAddress: .* \\(on trial: deeper for a problem\\)");
}

}  // namespace
}  // namespace deeper
