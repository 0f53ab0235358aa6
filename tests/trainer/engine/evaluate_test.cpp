#include "trainer/engine/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <thread>

#include "data/load/synthetic.h"
#include "kernels/base/exit_code.h"
#include "tests/comm/threads_communicator.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kRows = 6, kClasses = 5;

struct RankResult {
  absl::StatusOr<EvalResult> eval;
  std::vector<uint64_t> samples;  // passed to on_batch
  std::vector<float> logits;      // [samples, kClasses]
};

// One rank of an evaluation of a split, which has this number of samples for this rank.
RankResult EvaluateRank(Communicator& comm, int64_t samples, Tta tta = Tta::kNone, bool mirror = false) {
  Model model;
  model.image_size = 8;
  model.num_classes = kClasses;
  model.nodes = {{"conv", Conv2dParams{.out_channels = 16, .kernel = 3, .pad = 1}, kImages},
                 {"gap", GlobalAvgPoolParams{}, 0},
                 {"fc", LinearParams{kClasses}, 1}};
  model.heads = {{"main", 2, 1.0f}};
  const auto device = MakeCpuDevice(1);
  const auto net = *Network::Prepare(model, {kRows, DType::kF32, false}, *device);
  const auto params = *ParamStore::Create(net->Params(), *device, true);
  params->Initialize(7);
  EXPECT_TRUE(net->Bind(*params).ok());
  const auto data = MakeSyntheticDataset({.samples = samples, .height = 8, .width = 8, .classes = kClasses});
  LoaderOptions input;
  input.image_size = 8;
  input.rows = kRows;
  input.mirror = mirror;
  RankResult result;
  result.eval =
      Evaluate(*net, *device, *data, input, comm, tta, [&](const Batch& batch, const float* logits) {
        result.logits.insert(result.logits.end(), logits, logits + batch.rows * kClasses);
        result.samples.insert(result.samples.end(), batch.samples, batch.samples + batch.rows);
      });
  return result;
}

// samples[rank]: the size of the split for that rank.
std::vector<RankResult> EvaluateRanks(const std::vector<int64_t>& samples) {
  auto comms = MakeThreadCommunicators(static_cast<int>(samples.size()));
  std::vector<RankResult> results(samples.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < samples.size(); ++rank)
    threads.emplace_back([&, rank] { results[rank] = EvaluateRank(*comms[rank], samples[rank]); });
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST(EvaluateTest, CountsEverySampleOnceOnAnyNumberOfRanks) {
  for (const size_t world : {1, 2, 3, 5}) {
    for (const int64_t samples : {1, 12, 40}) {  // less than one per rank; whole batches; a partial one
      SCOPED_TRACE(::testing::Message() << samples << " samples, " << world << " ranks");
      std::vector<uint64_t> seen;
      for (const RankResult& rank : EvaluateRanks(std::vector<int64_t>(world, samples))) {
        ASSERT_TRUE(rank.eval.ok()) << rank.eval.status();
        EXPECT_EQ(rank.eval->count, samples);
        EXPECT_EQ(rank.eval->top5, samples);  // of five classes
        seen.insert(seen.end(), rank.samples.begin(), rank.samples.end());
      }
      std::vector<uint64_t> all(static_cast<size_t>(samples));
      std::iota(all.begin(), all.end(), 0);
      std::sort(seen.begin(), seen.end());
      EXPECT_EQ(seen, all);
    }
  }
}

TEST(EvaluateTest, FlipAveragesTheLogitsOfMirrorImages) {
  const auto comms = MakeThreadCommunicators(1);
  const auto evaluate = [&](Tta tta, bool mirror) { return EvaluateRank(*comms[0], 40, tta, mirror); };
  const RankResult plain = evaluate(Tta::kNone, false), mirrored = evaluate(Tta::kNone, true),
                   both = evaluate(Tta::kFlip, false);
  EXPECT_NE(plain.logits, mirrored.logits);
  EXPECT_EQ(plain.samples, both.samples);
  ASSERT_EQ(both.logits.size(), 40 * kClasses);
  const auto data = MakeSyntheticDataset({.samples = 40, .height = 8, .width = 8, .classes = kClasses});
  double loss = 0;
  int64_t top1 = 0;
  for (size_t i = 0; i < 40; ++i) {
    const float* const row = both.logits.data() + i * kClasses;
    double sum = 0;
    for (size_t c = 0; c < kClasses; ++c) {
      const size_t at = i * kClasses + c;
      EXPECT_FLOAT_EQ(row[c], (plain.logits[at] + mirrored.logits[at]) / 2);
      sum += std::exp(double{row[c]});
    }
    const int32_t label = data->label(static_cast<int64_t>(both.samples[i]));
    loss += std::log(sum) - double{row[label]};
    top1 += std::max_element(row, row + kClasses) - row == label;
  }
  EXPECT_NEAR(both.eval->loss, loss / 40, 1e-6);
  EXPECT_EQ(both.eval->top1, top1);
  EXPECT_EQ(both.eval->count, 40);
  EXPECT_NE(both.eval->loss, plain.eval->loss);
}

// As with ranks whose directories differ: each takes 20 of 40 samples, or 18 of 36.
TEST(EvaluateTest, AnotherNumberOfSamplesThanTheSplitHasIsAnErrorOnAllRanks) {
  const std::vector<RankResult> results = EvaluateRanks({40, 36});
  for (size_t rank = 0; rank < 2; ++rank) {
    const absl::Status& status = results[rank].eval.status();
    EXPECT_EQ(ExitCodeOf(status), ExitCode::kData);
    EXPECT_THAT(status.message(), HasSubstr(rank == 0 ? "counted 38 samples, but split synthetic has 40"
                                                      : "counted 38 samples, but split synthetic has 36"));
  }
}

}  // namespace
}  // namespace deeper
