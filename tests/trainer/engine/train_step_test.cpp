#include "trainer/engine/train_step.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "comm/nccl/device_communicator.h"
#include "data/load/synthetic.h"
#include "tests/comm/threads_communicator.h"
#include "tests/kernels/ops/test_values.h"
#include "tests/kernels/test_device.h"
#include "trainer/engine/evaluate.h"
#include "trainer/monitor/step_meter.h"

namespace deeper {
namespace {

constexpr int64_t kGlobalBatch = 13, kSamples = 40, kClasses = 5;

// A fork with auxiliary head, dropout and pooling, like a GoogLeNet; training it takes milliseconds.
Model SmallModel(bool training, bool batch_norm = false) {
  Model model;
  model.name = "small";
  model.image_size = 12;
  model.num_classes = kClasses;
  model.nodes = {
      {"conv1", Conv2dParams{.out_channels = 16, .kernel = 3, .pad = 1, .batch_norm = batch_norm}, kImages},
      {"pool1", PoolParams{.kernel = 3, .stride = 2, .pad = 1}, 0},
      {"conv2", Conv2dParams{.out_channels = 24, .kernel = 3, .pad = 1, .batch_norm = batch_norm}, 1},
      {"gap", GlobalAvgPoolParams{}, 2},
      {"drop", DropoutParams{training ? 0.3f : 0.0f}, 3},
      {"fc", LinearParams{kClasses}, 4}};
  model.heads = {{"main", 5, 1.0f}};
  if (training) {
    model.nodes.push_back({"aux.gap", GlobalAvgPoolParams{}, 1});
    model.nodes.push_back({"aux.fc", LinearParams{kClasses}, 6});
    model.heads.push_back({"aux", 7, 0.3f});
  }
  return model;
}

std::unique_ptr<Dataset> Data() {
  return MakeSyntheticDataset({.samples = kSamples, .height = 12, .width = 12, .classes = kClasses});
}

LoaderOptions LoadFor(const Communicator& comm, int64_t rows) {
  LoaderOptions options;
  options.image_size = 12;
  options.global_batch = kGlobalBatch;
  options.rows = rows;
  options.rank = comm.rank();
  options.world = comm.size();
  options.workers = 1;
  return options;
}

struct Outcome {
  std::vector<std::vector<double>> losses;  // [step][head], means over the global batch
  std::vector<float> weights;               // and running statistics
  EvalResult eval;
};

enum class Norm { kNone, kOfRank, kOfAllRanks };

// One rank of a run. rows: of a forward pass. slices: of an elastic run, else 0. sharded: the optimizer's
// state.
Outcome RunRank(Communicator& comm, int64_t rows, int steps, DType precision, Device* device, int slices = 0,
                GradientSum sum = GradientSum::kAnyOrder, bool sharded = false, Norm norm = Norm::kNone) {
  auto dataset = Data();
  const bool batch_norm = norm != Norm::kNone;
  StatisticsSum statistics(comm);
  NetworkOptions options = {rows, precision, true};
  if (norm == Norm::kOfAllRanks) options.sum_statistics = statistics.Function();
  auto net = *Network::Prepare(SmallModel(true, batch_norm), options, *device);
  auto eval_net = *Network::Prepare(SmallModel(false, batch_norm), {rows, precision, false}, *device);
  auto params = *ParamStore::Create(
      net->Params(), *device, true, net->wants_narrow_params(),
      {OptimizerState("sgd"), sharded ? ArenaSlice{comm.rank(), comm.size()} : ArenaSlice{}});
  params->Initialize(7);
  EXPECT_TRUE(net->Bind(*params).ok());
  EXPECT_TRUE(eval_net->Bind(*params).ok());
  LoaderOptions input = LoadFor(comm, rows);
  input.augment = Augment::kInception;
  input.slices = slices;
  net->Configure(input);
  auto loader = *MakeLoader(*dataset, input);
  const bool elastic = slices > 0;
  GradientAccumulator accumulator(*params, *device, elastic ? Accumulation::kTree : Accumulation::kRunning);
  const int64_t share = (kGlobalBatch + comm.size() - 1) / comm.size();
  const auto micros = elastic ? slices / comm.size() : static_cast<int>((share + rows - 1) / rows);
  EXPECT_TRUE(accumulator.Reserve(micros).ok());
  const DeviceCommunicator connection = *MakeDeviceCommunicator(comm, *device, Transport::kAuto);
  GradientReducer reducer(connection.comm ? *connection.comm : comm, params->grads(), net->gradient_pieces(),
                          1 << 10, elastic ? GradientSum::kTree : sum);
  FiniteGuard guard(*net, *params, comm, *device);
  Optimizer optimizer({.momentum = 0.9f, .weight_decay = 1e-3f}, *params, *device, &comm);
  TrainStep step(*loader, *net, accumulator, reducer, guard, optimizer, *device, 3, &statistics);

  StepMeter meter(net->model(), comm);

  Outcome outcome;
  for (int i = 0; i < steps; ++i) {
    const StepReport report = *step.Run(0.05f);
    EXPECT_TRUE(report.finite);
    meter.Add(report);
    outcome.losses.emplace_back();
    const Event logged = meter.Read(i, 0.05f, {});
    for (const Head& head : net->model().heads)
      outcome.losses.back().push_back(logged.fields.at("loss_" + head.name));
  }
  for (const Param& param : params->trained()) {
    std::vector<float> values(static_cast<size_t>(param.spec.elements()));
    params->Read(param, params->values(), values.data());
    outcome.weights.insert(outcome.weights.end(), values.begin(), values.end());
  }
  if (norm == Norm::kOfAllRanks) {
    outcome.weights.insert(outcome.weights.end(), params->statistic_values(),
                           params->statistic_values() + params->statistics_elements());
  }
  outcome.eval = *Evaluate(*eval_net, *device, *dataset, LoadFor(comm, rows), comm, Tta::kNone);
  return outcome;
}

std::unique_ptr<Device> OneCore() {
  return MakeCpuDevice(1);
}

// Those of the CPU.
std::vector<DType> Precisions() {
  if (OneCore()->bf16_support() == Bf16Support::kNone) return {DType::kF32};
  return {DType::kF32, DType::kBf16};
}

Outcome RunRanks(int world, int64_t rows, int steps, DType precision = DType::kF32, int slices = 0,
                 GradientSum sum = GradientSum::kAnyOrder, bool sharded = false,
                 std::unique_ptr<Device> (*make_device)() = OneCore, Norm norm = Norm::kNone) {
  auto comms = MakeThreadCommunicators(world);
  std::vector<Outcome> outcomes(comms.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < comms.size(); ++rank) {
    threads.emplace_back([&, rank] {
      const auto device = make_device();
      outcomes[rank] =
          RunRank(*comms[rank], rows, steps, precision, device.get(), slices, sum, sharded, norm);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Outcome& other : outcomes)
    EXPECT_EQ(other.weights, outcomes.front().weights) << "ranks drifted apart";
  return outcomes.front();
}

void ExpectSameTraining(const Outcome& a, const Outcome& b, double tolerance) {
  ASSERT_EQ(a.losses.size(), b.losses.size());
  for (size_t step = 0; step < a.losses.size(); ++step) {
    for (size_t head = 0; head < 2; ++head) {
      EXPECT_NEAR(a.losses[step][head], b.losses[step][head], tolerance * a.losses[step][head])
          << "step " << step;
    }
  }
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.weights.size(); ++i) {
    difference += std::pow(a.weights[i] - b.weights[i], 2);
    norm += std::pow(a.weights[i], 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), tolerance);
}

// 10 steps of 13 of 40 samples cross two epoch ends. Their last batch has one sample, fewer than ranks.
TEST(TrainStepTest, RanksAndMicroBatchesChangeNothing) {
  const Outcome whole = RunRanks(1, kGlobalBatch, 10);
  EXPECT_LT(whole.losses.back()[0], 1.2 * whole.losses.front()[0]);
  ExpectSameTraining(whole, RunRanks(1, 4, 10), 1e-5);
  ExpectSameTraining(whole, RunRanks(2, 7, 10), 1e-5);
  ExpectSameTraining(whole, RunRanks(3, 2, 10), 1e-5);
}

TEST(TrainStepTest, ElasticRunsAreTheSameBitsOnAnyNumberOfRanks) {
  for (const DType precision : Precisions()) {
    const Outcome alone = RunRanks(1, 2, 10, precision, /*slices=*/8);
    for (const int world : {2, 4, 8}) {
      const Outcome together = RunRanks(world, 2, 10, precision, 8);
      EXPECT_EQ(alone.weights, together.weights) << world << " ranks";
      EXPECT_EQ(alone.losses, together.losses) << world << " ranks";
    }
    EXPECT_NE(alone.weights, RunRanks(2, 2, 10, precision).weights) << "nothing depends on the order of sums";
  }
  ExpectSameTraining(RunRanks(1, kGlobalBatch, 10), RunRanks(4, 2, 10, DType::kF32, 8), 1e-5);
}

TEST(TrainStepTest, LearnsWithGradientsInBf16) {
  const Outcome fp32 = RunRanks(3, 5, 20), bf16 = RunRanks(3, 5, 20, DType::kF32, 0, GradientSum::kBf16);
  ExpectSameTraining(fp32, bf16, 0.01);
  EXPECT_NE(fp32.weights, bf16.weights);
}

TEST(TrainStepTest, ShardedMomentumChangesNoBit) {
  const auto expect_same = [](int world, DType precision, int slices, GradientSum sum) {
    const Outcome whole = RunRanks(world, 2, 10, precision, slices, sum);
    const Outcome sharded = RunRanks(world, 2, 10, precision, slices, sum, /*sharded=*/true);
    EXPECT_EQ(whole.weights, sharded.weights) << world << " ranks, " << slices << " slices";
    EXPECT_EQ(whole.losses, sharded.losses) << world << " ranks, " << slices << " slices";
  };
  for (const DType precision : Precisions()) {
    for (const int world : {1, 2, 3}) expect_same(world, precision, 0, GradientSum::kAnyOrder);
    for (const int world : {1, 2, 4}) expect_same(world, precision, 8, GradientSum::kTree);
  }
  expect_same(3, DType::kF32, 0, GradientSum::kBf16);
}

// Epochs end with a batch of one sample, fewer than ranks; of three micro-batches per step, two are empty.
TEST(TrainStepTest, BatchNormOfAllRanksTrainsAsOnOne) {
  const auto run = [](int world, int64_t rows, Norm norm) {
    return RunRanks(world, rows, 10, DType::kF32, 0, GradientSum::kAnyOrder, false, OneCore, norm);
  };
  const Outcome alone = run(1, kGlobalBatch, Norm::kOfAllRanks);
  ExpectSameTraining(alone, run(2, 7, Norm::kOfAllRanks), 1e-5);
  ExpectSameTraining(alone, run(3, 5, Norm::kOfAllRanks), 1e-5);
  // Each of three micro-batches has its own statistics.
  const double in_micros = run(3, 2, Norm::kOfAllRanks).losses.back()[0];
  EXPECT_NEAR(in_micros, alone.losses.back()[0], 0.3 * alone.losses.back()[0]);

  // On one rank the result is that of oneDNN on the whole batch; separate statistics per rank differ more.
  const std::vector<double> expected = run(1, kGlobalBatch, Norm::kOfRank).losses.back();
  EXPECT_NEAR(alone.losses.back()[0], expected[0], 1e-5 * expected[0]);
  EXPECT_GT(std::abs(run(3, 5, Norm::kOfRank).losses.back()[0] - expected[0]), 1e-3 * expected[0]);
}

TEST(TrainStepTest, SameRunTwiceIsBitIdentical) {
  EXPECT_EQ(RunRanks(2, 3, 5).weights, RunRanks(2, 3, 5).weights);
}

TEST(TrainStepTest, LearnsInBf16AsInFp32) {
  if (Precisions().size() == 1) GTEST_SKIP() << "this processor has no AVX-512";
  const Outcome fp32 = RunRanks(1, kGlobalBatch, 10), bf16 = RunRanks(1, kGlobalBatch, 10, DType::kBf16);
  ExpectSameTraining(fp32, bf16, 0.05);
  EXPECT_NE(fp32.weights, bf16.weights);
}

// Compares whole steps on the test's device, with all ops and updates, with those on the CPU.
class DeviceTraining : public ::testing::TestWithParam<DType> {};

TEST_P(DeviceTraining, TracksTheCpu) {
  const auto comm = MakeSingleCommunicator();
  const bool fp32 = GetParam() == DType::kF32;
  const int steps = fp32 ? 50 : 10;  // in bf16, batches of 13 soon diverge
  const auto run = [&](int64_t rows) {
    return RunRank(*comm, rows, steps, GetParam(), &testing::TestDevice());
  };
  const Outcome expected = RunRanks(1, kGlobalBatch, steps);
  const Outcome whole = run(kGlobalBatch);
  const double tolerance = fp32 ? 1e-3 : 0.1;
  ExpectSameTraining(expected, whole, tolerance);
  ExpectSameTraining(expected, run(5), tolerance);  // three micro-batches a step
  EXPECT_EQ(run(kGlobalBatch).weights, whole.weights) << "the same run twice gave other bits";
  EXPECT_EQ(whole.eval.count, kSamples);
  EXPECT_NEAR(whole.eval.loss, expected.eval.loss, tolerance * expected.eval.loss);
}

// On CUDA the ranks share a GPU, or the host that simulates one: sums pass through host memory.
TEST_P(DeviceTraining, RanksChangeNothing) {
  const bool fp32 = GetParam() == DType::kF32;
  const int steps = fp32 ? 10 : 3;
  const auto run = [&](int world, int64_t rows, GradientSum sum = GradientSum::kAnyOrder) {
    return RunRanks(world, rows, steps, GetParam(), /*slices=*/0, sum, /*sharded=*/false,
                    testing::MakeTestDevice);
  };
  const Outcome alone = run(1, kGlobalBatch);
  const double tolerance = fp32 ? 1e-5 : 0.02;
  ExpectSameTraining(alone, run(2, 7), tolerance);
  ExpectSameTraining(alone, run(2, 3), tolerance);  // three micro-batches a step
  ExpectSameTraining(alone, run(3, 5), tolerance);
  ExpectSameTraining(alone, run(3, 5, GradientSum::kBf16), 0.02);
  EXPECT_EQ(run(2, 7).weights, run(2, 7).weights) << "the same run twice gave other bits";
}

// Each rank has several micro-batches, whose sums form a tree.
TEST_P(DeviceTraining, ElasticIsTheSameOnAnyNumberOfRanks) {
  const bool fp32 = GetParam() == DType::kF32;
  const int steps = fp32 ? 10 : 3;
  const auto run = [&](int world) {
    return RunRanks(world, 2, steps, GetParam(), /*slices=*/8, GradientSum::kAnyOrder, /*sharded=*/false,
                    testing::MakeTestDevice);
  };
  const Outcome alone = run(1);
  ExpectSameTraining(RunRanks(1, kGlobalBatch, steps), alone, fp32 ? 1e-3 : 0.1);
  for (const int world : {2, 4}) {
    const Outcome together = run(world);
    EXPECT_EQ(together.weights, alone.weights) << world << " ranks";
    EXPECT_EQ(together.losses, alone.losses) << world << " ranks";
  }
}

TEST_P(DeviceTraining, RecordedStepsAreTheSameBits) {
  const char* const device_name = std::getenv("DEEPER_TEST_DEVICE");
  if (device_name == nullptr || std::string(device_name) != "cuda") GTEST_SKIP() << "only a GPU records";
  CudaOptions options;
  options.deterministic = true;
  options.graphs = false;
  const auto unrecorded = *MakeCudaDevice(options);
  const auto comm = MakeSingleCommunicator();
  for (const int64_t rows : {kGlobalBatch, int64_t{5}}) {
    const Outcome plain = RunRank(*comm, rows, 20, GetParam(), unrecorded.get());
    const Outcome recorded = RunRank(*comm, rows, 20, GetParam(), &testing::TestDevice());
    EXPECT_EQ(plain.weights, recorded.weights);
    EXPECT_EQ(plain.losses, recorded.losses);
  }
}

INSTANTIATE_TEST_SUITE_P(, DeviceTraining, ::testing::ValuesIn(testing::TestTypes()),
                         [](const auto& test) { return NameOf(test.param); });

TEST(NetworkTest, NothingIsAllocatedAfterTheFirstStep) {
  auto device = MakeCpuDevice(1);
  auto dataset = Data();
  auto comm = MakeSingleCommunicator();
  auto net = *Network::Prepare(SmallModel(true), {kGlobalBatch, DType::kF32, true}, *device);
  auto params = *ParamStore::Create(net->Params(), *device, true);
  ASSERT_TRUE(net->Bind(*params).ok());
  auto loader = *MakeLoader(*dataset, LoadFor(*comm, kGlobalBatch));
  net->Load(*loader->Next(), 1);
  loader.reset();
  const auto step = [&] {
    net->Forward();
    net->Backward([](size_t) {});
  };
  step();
  const struct mallinfo2 before = mallinfo2();
  for (int i = 0; i < 3; ++i) step();
  const struct mallinfo2 after = mallinfo2();
  EXPECT_EQ(after.hblkhd, before.hblkhd);
  EXPECT_LT(after.uordblks, before.uordblks + 4096);
}

}  // namespace
}  // namespace deeper
