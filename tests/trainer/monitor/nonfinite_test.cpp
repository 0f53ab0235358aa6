#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/base/exit_code.h"
#include "tests/trainer/monitor/watched.h"

namespace deeper {
namespace {

using ::testing::HasSubstr;

class NonFiniteTest : public ::testing::Test {
 protected:
  Watched Watch(bool skip) const {
    return {WatchNonFinite({.model = model_,
                            .comm = *comm_,
                            .loader = loader_,
                            .skip_nonfinite = skip,
                            .culprit = [](const StepReport&) { return std::string("fc.bias is NaN"); }})};
  }
  static StepReport Report(bool finite) {
    StepReport report;
    report.finite = finite;
    return report;
  }

  const Model model_;
  const std::unique_ptr<Communicator> comm_ = MakeSingleCommunicator();
  const FakeLoader loader_;
};

TEST_F(NonFiniteTest, StopsAtTheFirstAndReportsIt) {
  Watched watched = Watch(/*skip=*/false);
  EXPECT_EQ(watched.Observe(Report(true)), absl::OkStatus());
  const absl::Status status = watched.Observe(Report(false));
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kNotFinite);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("step 2: fc.bias is NaN. The step did not change the weights. Resume"));
  ASSERT_EQ(watched.events.size(), 1u);
  EXPECT_EQ(watched.events[0].fields.dump(), R"({"step":2,"reason":"fc.bias is NaN"})");
  EXPECT_EQ(watched.events[0].text, "");
}

TEST_F(NonFiniteTest, SkipsUntilThatDoesNotHelp) {
  Watched watched = Watch(/*skip=*/true);
  for (int i = 0; i < 99; ++i) EXPECT_EQ(watched.Observe(Report(false)), absl::OkStatus());
  EXPECT_EQ(watched.events.back().text, "warning: skipped step 99: fc.bias is NaN");
  EXPECT_EQ(watched.Observe(Report(true)), absl::OkStatus());
  for (int i = 0; i < 99; ++i) EXPECT_EQ(watched.Observe(Report(false)), absl::OkStatus());
  const absl::Status status = watched.Observe(Report(false));
  EXPECT_EQ(ExitCodeOf(status), ExitCode::kNotFinite);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 200: fc.bias is NaN; 100 steps in a row"));
}

}  // namespace
}  // namespace deeper
