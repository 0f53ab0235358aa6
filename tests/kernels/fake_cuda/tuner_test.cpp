// The tuner on scripted algorithms.
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernels/base/status.h"
#include "kernels/cuda/plans/autotune.h"
#include "tests/kernels/fake_cuda/fake_cuda.h"

namespace deeper {
namespace {

struct Seen {
  std::vector<PlanOperands> operands;  // of each launch
};

class Recorder final : public Algorithm {
 public:
  Recorder(Seen& seen, size_t index) : seen_(seen), index_(index) {}
  absl::StatusOr<std::string> Serialize() const override { return std::to_string(index_); }
  absl::Status Enqueue(const PlanOperands& operands, Stream) override {
    seen_.operands.push_back(operands);
    return absl::OkStatus();
  }

 private:
  Seen& seen_;
  const size_t index_;
};

class TwoRecorders final : public AlgorithmChoice {
 public:
  explicit TwoRecorders(Seen& seen) : seen_(seen) {}
  absl::Status Ask() override { return absl::OkStatus(); }
  size_t size() const override { return 2; }
  absl::StatusOr<std::unique_ptr<Algorithm>> Build(size_t index) const override {
    return std::make_unique<Recorder>(seen_, index);
  }
  absl::StatusOr<std::unique_ptr<Algorithm>> Load(const std::string&) const override {
    return Unimplemented("not saved");
  }

 private:
  Seen& seen_;
};

Seen Tune(const OperandSizes& sizes, int contenders) {
  fake_cuda::Reset({});
  const auto device = *MakeCudaDevice({});
  Seen seen;
  TwoRecorders choice(seen);
  EXPECT_TRUE(ChooseFastest(choice, "problem", sizes, *device, {contenders}, nullptr).ok());
  return seen;
}

// Launches in turn must not find their operands in the L2 cache.
TEST(FakeCudaTuner, RotatesSmallOperands) {
  const Seen seen = Tune({.a = 1 << 20, .b = 1 << 10, .d = 1 << 20, .mask = 1 << 20}, 2);
  ASSERT_GT(seen.operands.size(), 10u);
  for (size_t i = 4; i < seen.operands.size(); ++i) {
    std::set<const void*> different;
    for (size_t j = i - 4; j <= i; ++j)
      for (const void* operand : {seen.operands[j].a, seen.operands[j].b, seen.operands[j].mask,
                                  static_cast<const void*>(seen.operands[j].d)})
        different.insert(operand);
    EXPECT_EQ(different.size(), 20u) << i;
  }
}

TEST(FakeCudaTuner, KeepsLargeOnesAndThoseThatNeedNoTimes) {
  for (const Seen& seen : {Tune({.a = size_t{200} << 20, .b = 16, .d = size_t{60} << 20}, 2),
                           Tune({.a = 1 << 20, .b = 16, .d = 1 << 20}, 1)}) {
    for (const PlanOperands& operands : seen.operands) EXPECT_EQ(operands.a, seen.operands[0].a);
  }
}

}  // namespace
}  // namespace deeper
