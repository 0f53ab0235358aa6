#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/trainer/monitor/watched.h"

namespace deeper {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kWindow = 200;
const double kGuessing = std::log(1000.0);

class StuckHeadsTest : public ::testing::Test {
 protected:
  // A whole window in which the main and the auxiliary head have these mean losses, on 4 rows.
  void Window(double main, double aux) {
    for (int i = 0; i < kWindow; ++i) Step(main, aux);
  }
  void Step(double main, double aux, bool finite = true) {
    StepReport report;
    report.finite = finite;
    for (const double mean : {main, aux}) {
      report.heads.emplace_back();
      report.heads.back().loss_sum = 4 * mean;
      report.heads.back().rows = 4;
    }
    EXPECT_EQ(stuck_.Observe(report), absl::OkStatus());
  }

  static Model TwoHeads() {
    Model model;
    model.num_classes = 1000;
    model.heads = {{"main", 0, 1.0f}, {"aux1", 0, 0.3f}};
    return model;
  }

  const Model model_ = TwoHeads();
  const std::unique_ptr<Communicator> comm_ = MakeSingleCommunicator();
  const FakeLoader loader_;
  Watched stuck_{WatchStuckHeads({.model = model_, .comm = *comm_, .loader = loader_})};
};

TEST_F(StuckHeadsTest, NamesTheHeadThatGuesses) {
  for (int i = 1; i < kWindow; ++i) Step(6.9 - 0.01 * i, i % 2 == 0 ? 6.9 : 6.92);
  Step(NAN, NAN, /*finite=*/false);
  EXPECT_THAT(stuck_.events, IsEmpty());
  Step(4.0, 6.91);
  EXPECT_THAT(stuck_.Texts(), ElementsAre(AllOf(HasSubstr("head aux1"), HasSubstr("step 201"),
                                                HasSubstr("ln 1000 = 6.9078"))));
  EXPECT_EQ(stuck_.events.front().name, "stuck_head");
  EXPECT_EQ(stuck_.events.front().fields["step"], 201);
  EXPECT_THAT(stuck_.events.front().fields["what"].get<std::string>(), HasSubstr("head aux1"));
}

TEST_F(StuckHeadsTest, WarnsOnceAHead) {
  Window(1.0, kGuessing);
  EXPECT_THAT(stuck_.Texts(), ElementsAre(HasSubstr("aux1")));
  Window(kGuessing, kGuessing);
  EXPECT_THAT(stuck_.Texts(), ElementsAre(HasSubstr("aux1"), HasSubstr("main")));
  Window(kGuessing, kGuessing);
  EXPECT_EQ(stuck_.events.size(), 2u);
}

TEST_F(StuckHeadsTest, SilentWhileLearningOrDiverging) {
  for (int window = 0; window < 5; ++window) Window(6.6 - 0.6 * window, 8.0);
  EXPECT_THAT(stuck_.events, IsEmpty());
}

}  // namespace
}  // namespace deeper
