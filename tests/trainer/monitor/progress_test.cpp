#include "trainer/monitor/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <limits>
#include <string>

namespace deeper {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

ProgressState Example() {
  return {.step = 1200,
          .total_steps = 9000,
          .epoch = 3,
          .epochs = 90,
          .loss = 2.34514,
          .lr = 0.1,
          .images_per_second = 1234,
          .global_batch = 256};
}

constexpr char kExampleLine[] =
    "step 1200/9000  epoch 4/90   loss  2.3451  lr 0.1          1234 images/s  ETA 0:26:58";

TEST(FormatDuration, PicksItsUnits) {
  EXPECT_EQ(FormatDuration(0), "0:00:00");
  EXPECT_EQ(FormatDuration(59.6), "0:01:00");
  EXPECT_EQ(FormatDuration(725), "0:12:05");
  EXPECT_EQ(FormatDuration(3 * 3600 + 7 * 60 + 9), "3:07:09");
  EXPECT_EQ(FormatDuration(2 * 86400 + 3 * 3600 + 7 * 60 + 9), "2d 03:07");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::infinity()), "-");
}

TEST(FormatProgress, LineSaysItAll) {
  EXPECT_EQ(FormatProgressLine(Example()), kExampleLine);
}

TEST(FormatProgress, TheTimeLeftIsThatOfThisProcess) {
  ProgressState part = Example();
  part.last_step = 1300;
  EXPECT_THAT(FormatProgressLine(part), EndsWith("ETA 0:00:21"));
}

TEST(FormatProgress, LineWithoutEpochsOrSpeed) {
  ProgressState state = Example();
  state.epochs = 0;
  state.images_per_second = 0;
  EXPECT_EQ(FormatProgressLine(state), "step 1200/9000  loss  2.3451  lr 0.1           0.0 images/s  ETA -");
}

TEST(FormatProgress, BarFillsTheWidth) {
  const std::string bar = FormatProgressBar(Example(), 110);
  EXPECT_EQ(bar.size(), 110u);
  EXPECT_THAT(bar, StartsWith(" 13% [##---"));
  EXPECT_THAT(bar, EndsWith(std::string("-]  ") + kExampleLine));
}

TEST(FormatProgress, BarGivesWayToTheTextOnANarrowTerminal) {
  EXPECT_EQ(FormatProgressBar(Example(), 100), std::string(" 13% ") + kExampleLine);
  EXPECT_EQ(FormatProgressBar(Example(), 79),
            " 13% step 1200/9000 epoch 4/90 loss 2.3451 lr 0.1 1234 images/s ETA 0:26:58");
  EXPECT_EQ(FormatProgressBar(Example(), 20), " 13% step 1200/9000 ");
  EXPECT_EQ(FormatProgressBar(Example(), 0), "");
}

TEST(FormatProgress, BarIsFullAtTheEnd) {
  ProgressState state = Example();
  state.step = 9000;
  const std::string bar = FormatProgressBar(state, 200);
  EXPECT_THAT(bar, StartsWith("100% [" + std::string(40, '#') + "]"));
}

std::string PrintedToAFile(int64_t log_every) {
  std::FILE* file = std::tmpfile();
  {
    Progress progress(file, log_every);
    ProgressState state = Example();
    state.total_steps = 5;
    for (state.step = 1; state.step <= 5; ++state.step) progress.Update(state);
    progress.Print("done");
  }
  std::rewind(file);
  std::string text(4096, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

TEST(Progress, PrintsPlainLinesIntoAFile) {
  const std::string text = PrintedToAFile(2);
  EXPECT_THAT(text, Not(HasSubstr("step 1/5")));
  EXPECT_THAT(text, HasSubstr("step 2/5"));
  EXPECT_THAT(text, Not(HasSubstr("step 3/5")));
  EXPECT_THAT(text, HasSubstr("step 4/5"));
  EXPECT_THAT(text, HasSubstr("step 5/5"));
  EXPECT_THAT(text, EndsWith("\ndone\n"));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

TEST(Progress, PrintsOnlyTheLastStepWithoutLogEvery) {
  EXPECT_THAT(PrintedToAFile(0), StartsWith("step 5/5"));
}

TEST(Progress, RedrawsOneLineOnATerminal) {
  int controller = 0, terminal = 0;
  winsize size{};
  size.ws_row = 24;
  size.ws_col = 100;
  ASSERT_EQ(openpty(&controller, &terminal, nullptr, nullptr, &size), 0);
  std::FILE* out = fdopen(terminal, "w");
  {
    Progress progress(out, 1000);
    progress.Update(Example());
    progress.Print("a checkpoint was saved");
    ProgressState last = Example();
    last.step = last.total_steps;
    progress.Update(last);
  }
  std::fclose(out);
  std::string text;
  char part[4096];
  // A terminal hands over what it has in pieces, and ends in an error when its other side is closed.
  for (ssize_t bytes = 0; (bytes = read(controller, part, sizeof part)) > 0;)
    text.append(part, static_cast<size_t>(bytes));
  close(controller);
  EXPECT_THAT(text, StartsWith(FormatProgressBar(Example(), 99) + "\r\x1b[Ka checkpoint was saved\r\n100% "));
  EXPECT_THAT(text, EndsWith("ETA 0:00:00\r\n"));
}

TEST(Progress, NullPrintsNothing) {
  Progress progress(nullptr, 1);
  progress.Update(Example());
  progress.Print("unseen");
}

}  // namespace
}  // namespace deeper
