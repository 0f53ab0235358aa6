#include "trainer/engine/finite_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/nccl/device_communicator.h"
#include "data/load/synthetic.h"
#include "tests/comm/threads_communicator.h"
#include "tests/kernels/test_device.h"
#include "trainer/engine/train_step.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Lt;
using Limits = std::numeric_limits<float>;

constexpr int64_t kGlobalBatch = 6;

// With running statistics, which a forward pass changes.
Model SmallModel() {
  Model model;
  model.name = "small";
  model.image_size = 8;
  model.num_classes = 3;
  model.nodes = {
      {"conv1", Conv2dParams{.out_channels = 16, .kernel = 3, .pad = 1, .batch_norm = true}, kImages},
      {"gap", GlobalAvgPoolParams{}, 0},
      {"fc", LinearParams{3}, 1}};
  model.heads = {{"main", 2, 1.0f}};
  return model;
}

// One rank of a training, with access to all its parts.
class Rank {
 public:
  Rank(Communicator& comm, bool sharded, std::unique_ptr<Device> device, GradientSum sum)
      : device_(std::move(device)),
        connection_(*MakeDeviceCommunicator(comm, *device_, Transport::kAuto)),
        net_(*Network::Prepare(SmallModel(), {kGlobalBatch / comm.size(), DType::kF32, true}, *device_)),
        params_(*ParamStore::Create(
            net_->Params(), *device_, true, /*narrow=*/false,
            {OptimizerState("sgd"), sharded ? ArenaSlice{comm.rank(), comm.size()} : ArenaSlice{},
             /*averages=*/true})) {
    params_->Initialize(7);
    params_->StartAverages();
    EXPECT_TRUE(net_->Bind(*params_).ok());
    LoaderOptions input;
    input.global_batch = kGlobalBatch;
    input.rank = comm.rank();
    input.world = comm.size();
    input.workers = 1;
    net_->Configure(input);
    loader_ = *MakeLoader(*dataset_, input);
    reducer_ = std::make_unique<GradientReducer>(connection_.comm ? *connection_.comm : comm,
                                                 params_->grads(), net_->gradient_pieces(), 1, sum);
    guard_ = std::make_unique<FiniteGuard>(*net_, *params_, comm, *device_);
    optimizer_ = std::make_unique<Optimizer>(OptimizerOptions{.ema_decay = 0.5f}, *params_, *device_, &comm);
    accumulator_ = std::make_unique<GradientAccumulator>(*params_, *device_);
    step_ = std::make_unique<TrainStep>(*loader_, *net_, *accumulator_, *reducer_, *guard_, *optimizer_,
                                        *device_, 3);
  }

  StepReport Step() { return *step_->Run(0.05f); }
  std::string Culprit(const StepReport& report) { return guard_->Culprit(report.heads); }
  // Repeats what a step does with its gradients. True if the guard accepts them.
  bool SumAgain(const StepReport& report) {
    BeginGuard(report);
    for (size_t piece = 0; piece < pieces(); ++piece) {
      guard_->InspectPiece(piece);
      reducer_->Ready(piece, device_->stream());
    }
    reducer_->Finish(device_->stream());
    return InspectAll();
  }
  // With these losses.
  void BeginGuard(const StepReport& report) {
    losses_ = device_->Allocate(report.heads.size() * sizeof(HeadResult));
    device_->Copy(losses_.data(), report.heads.data(), losses_.bytes());
    guard_->BeginStep();
    guard_->InspectLosses(losses_.as<HeadResult>(), /*first=*/true);
  }
  void InspectMoreLosses(const StepReport& report) {
    device_->Copy(losses_.data(), report.heads.data(), losses_.bytes());
    guard_->InspectLosses(losses_.as<HeadResult>(), /*first=*/false);
  }
  bool InspectAll() {
    guard_->InspectSums();
    device_->Synchronize();
    return guard_->EndStep();
  }
  FiniteGuard& guard() { return *guard_; }
  // The first value of a parameter, in memory.
  float& Value(const std::string& name) { return params_->values()[Find(name).offset]; }
  // The same on any device. Returns the old one.
  float Exchange(const std::string& name, float value) {
    float old = 0;
    device_->Copy(&old, &Value(name), sizeof old);
    device_->Synchronize();
    device_->Copy(&Value(name), &value, sizeof value);
    device_->Synchronize();
    return old;
  }
  float& Gradient(const std::string& name) { return params_->grads()[Find(name).offset]; }
  size_t pieces() const { return net_->gradient_pieces().size(); }
  // Weights, this rank's state, statistics, and the averages of weights and statistics.
  std::vector<float> State() const {
    std::vector<float> state;
    for (const auto& [values, count] :
         {std::pair(params_->values(), params_->trained_elements()),
          std::pair(params_->state(0), params_->state_elements()),
          std::pair(params_->statistic_values(), params_->statistics_elements()),
          std::pair(params_->averages(), params_->trained_elements()),
          std::pair(params_->statistic_averages(), params_->statistics_elements())}) {
      std::vector<float> read(static_cast<size_t>(count));
      device_->Copy(read.data(), values, read.size() * sizeof(float));
      device_->Synchronize();
      state.insert(state.end(), read.begin(), read.end());
    }
    return state;
  }

 private:
  const Param& Find(const std::string& name) const {
    return *std::find_if(params_->trained().begin(), params_->trained().end(),
                         [&](const Param& param) { return param.name == name; });
  }

  std::unique_ptr<Device> device_;
  DeviceCommunicator connection_;
  std::unique_ptr<Dataset> dataset_ =
      MakeSyntheticDataset({.samples = 60, .height = 8, .width = 8, .classes = 3});
  std::unique_ptr<Network> net_;
  std::unique_ptr<ParamStore> params_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<GradientReducer> reducer_;
  std::unique_ptr<FiniteGuard> guard_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<GradientAccumulator> accumulator_;
  std::unique_ptr<TrainStep> step_;
  Buffer losses_;
};

std::unique_ptr<Device> OneCore() {
  return MakeCpuDevice(1);
}

void OnRanks(int size, const std::function<void(Communicator&, Rank&)>& body, bool sharded = false,
             std::unique_ptr<Device> (*make_device)() = OneCore, GradientSum sum = GradientSum::kAnyOrder) {
  auto comms = MakeThreadCommunicators(size);
  std::vector<std::thread> threads;
  for (auto& comm : comms) {
    threads.emplace_back([&] {
      Rank rank(*comm, sharded, make_device(), sum);
      body(*comm, rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(FiniteGuard, LetsFiniteStepsPass) {
  OnRanks(2, [](Communicator&, Rank& rank) {
    const std::vector<float> before = rank.State();
    EXPECT_TRUE(rank.Step().finite);
    EXPECT_NE(rank.State(), before);
  });
}

void ExpectABadStepReachesNoRank(float bad, bool sharded) {
  const auto body = [&](Communicator& comm, Rank& rank) {
    EXPECT_TRUE(rank.Step().finite);
    float& weight = rank.Value("fc.weight");
    const float good = weight;
    if (comm.rank() == 1) weight = bad;  // of this rank's copy
    const std::vector<float> before = rank.State();
    const StepReport report = rank.Step();
    EXPECT_FALSE(report.finite);
    const std::vector<float> after = rank.State();
    EXPECT_EQ(std::memcmp(after.data(), before.data(), after.size() * sizeof(float)), 0);
    EXPECT_THAT(rank.Culprit(report), HasSubstr("the gradient of fc.weight is not finite on rank 1"));
    weight = good;
    EXPECT_TRUE(rank.Step().finite);
  };
  OnRanks(3, body, sharded);
}

TEST(FiniteGuard, KeepsABadStepFromEveryRank) {
  for (const float bad : {Limits::quiet_NaN(), Limits::infinity()}) {
    ExpectABadStepReachesNoRank(bad, /*sharded=*/false);
    ExpectABadStepReachesNoRank(bad, /*sharded=*/true);
  }
}

// Its finite gradients may be huge, and so may be the errors of their rounding, which would be added later.
TEST(FiniteGuard, KeepsTheRoundingErrorsOfABadStepFromTheNext) {
  const auto body = [](Communicator& comm, Rank& rank) {
    EXPECT_TRUE(rank.Step().finite);
    float& weight = rank.Value("fc.weight");
    const float good = weight;
    weight = comm.rank() == 1 ? Limits::max() : Limits::quiet_NaN();
    EXPECT_FALSE(rank.Step().finite);
    weight = good;
    EXPECT_TRUE(rank.Step().finite);
    EXPECT_THAT(rank.State(), Each(AllOf(Gt(-100.0f), Lt(100.0f))));
  };
  OnRanks(2, body, /*sharded=*/false, OneCore, GradientSum::kBf16);
}

TEST(FiniteGuard, NamesTheTensorOfASingleRank) {
  OnRanks(1, [](Communicator&, Rank& rank) {
    rank.Value("conv1.conv.weight") = Limits::infinity();
    const StepReport report = rank.Step();
    EXPECT_FALSE(report.finite);
    EXPECT_THAT(rank.Culprit(report), HasSubstr("the gradient of "));
    EXPECT_THAT(rank.Culprit(report), HasSubstr(" is not finite; the loss is "));
  });
}

// The guard alone, with its own gradients.
TEST(FiniteGuard, NoticesWhatOverflowsInTheSum) {
  OnRanks(2, [](Communicator& comm, Rank& rank) {
    const StepReport report = rank.Step();
    rank.BeginGuard(report);
    float& gradient = rank.Gradient("fc.bias");
    gradient = Limits::max();
    for (size_t piece = 0; piece < rank.pieces(); ++piece) rank.guard().InspectPiece(piece);
    comm.AllReduce(&gradient, 1, CommType::kF32, ReduceOp::kSum, {}).Wait();
    rank.guard().InspectSums();
    EXPECT_FALSE(rank.guard().EndStep());
    EXPECT_EQ(rank.Culprit(report), "the gradient of fc.bias overflows in the sum over ranks");
  });
}

// Also where the whole step is a recording, which the host does not look into.
TEST(DeviceTrainingGuard, ABadStepChangesNothing) {
  const auto body = [](Communicator& comm, Rank& rank) {
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(rank.Step().finite);
    const float good = rank.Exchange("fc.weight", comm.rank() == 0 ? Limits::quiet_NaN() : 0.1f);
    const std::vector<float> before = rank.State();
    EXPECT_FALSE(rank.Step().finite);
    const std::vector<float> after = rank.State();
    EXPECT_EQ(std::memcmp(after.data(), before.data(), after.size() * sizeof(float)), 0);
    rank.Exchange("fc.weight", good);
    // So often that the recording that ran the bad step also runs a good one.
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(rank.Step().finite);
    EXPECT_NE(rank.State(), before);
  };
  OnRanks(1, body, /*sharded=*/false, testing::MakeTestDevice);
  OnRanks(2, body, /*sharded=*/false, testing::MakeTestDevice);
}

// Of any micro-batch, though the gradients are finite. One rank needs no peer for that.
TEST(DeviceTrainingGuard, ALossIsRememberedOverMicroBatches) {
  const auto body = [](Communicator&, Rank& rank) {
    StepReport report = rank.Step();
    EXPECT_TRUE(rank.SumAgain(report));
    StepReport bad = report;
    bad.heads[0].loss_sum = Limits::quiet_NaN();
    rank.BeginGuard(bad);
    rank.InspectMoreLosses(report);
    EXPECT_FALSE(rank.InspectAll());
    EXPECT_TRUE(rank.SumAgain(report)) << "the next step is judged anew";
  };
  OnRanks(1, body, /*sharded=*/false, testing::MakeTestDevice);
}

TEST(FiniteGuard, ALossThatIsNotFiniteIsEveryRanks) {
  OnRanks(2, [](Communicator& comm, Rank& rank) {
    StepReport report = rank.Step();
    if (comm.rank() == 1) report.heads[0].loss_sum = Limits::infinity();
    rank.BeginGuard(report);
    for (size_t piece = 0; piece < rank.pieces(); ++piece) rank.guard().InspectPiece(piece);
    float& first = rank.Gradient("fc.weight");  // the first gradient of backward
    comm.AllReduce(&first, 1, CommType::kF32, ReduceOp::kSum, {}).Wait();
    rank.guard().InspectSums();
    EXPECT_FALSE(rank.guard().EndStep());
    EXPECT_EQ(rank.Culprit(report),
              "the gradient of fc.weight is not finite on rank 1; the loss is inf there");
  });
}

// The rank makes a gradient NaN before it leaves, on every kind of device.
TEST(DeviceTrainingGuard, ALossThatIsNotFiniteIsEveryRanks) {
  const auto body = [](Communicator& comm, Rank& rank) {
    StepReport report = rank.Step();
    EXPECT_TRUE(rank.SumAgain(report));
    if (comm.rank() == 1) report.heads[0].loss_sum = Limits::infinity();
    EXPECT_FALSE(rank.SumAgain(report));
    EXPECT_THAT(rank.Culprit(report), AllOf(HasSubstr("the loss is inf"), HasSubstr("on rank 1")));
  };
  OnRanks(3, body, /*sharded=*/false, testing::MakeTestDevice);
}

}  // namespace
}  // namespace deeper
