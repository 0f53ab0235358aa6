// Progress of a run for people: a bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "kernels/base/choice.h"

namespace deeper {

struct ProgressState {
  int64_t step = 0, total_steps = 0;  // steps done, and in all
  int64_t last_step = 0;              // at which this process ends (--stop_at); 0: at total_steps
  int64_t epoch = 0, epochs = 0;      // current epoch, counted from 0, and their number; 0: not known
  double loss = 0;
  double lr = 0;
  double images_per_second = 0;
  int64_t global_batch = 0;
};

// "0:00:42", "3:07:09", "2d 03:07"; "-" if not finite.
std::string FormatDuration(double seconds);
// "step 1200/9000  epoch 4/90   loss  2.3451  lr 0.1          1234 images/s  ETA 1:02:03". The columns have
// fixed widths.
std::string FormatProgressLine(const ProgressState& state);
// " 13% [####------]  step ...": FormatProgressLine after a bar that fills the rest of `columns`. If
// `columns` have no room for a bar: the line alone, with single spaces if necessary, and cut to `columns`.
std::string FormatProgressBar(const ProgressState& state, int columns);

enum class ProgressStyle {
  kAuto,  // a bar if `out` is a terminal
  kBar,
  kLines,
};
constexpr auto Choices(ProgressStyle) {
  return std::to_array<Choice<ProgressStyle>>(
      {{"auto", ProgressStyle::kAuto, "a bar on a terminal, lines elsewhere and under mpirun"},
       {"bar", ProgressStyle::kBar, "redrawn in place"},
       {"lines", ProgressStyle::kLines, "one line every --log_every steps"}});
}

class Progress {
 public:
  // Writes to `out`: a bar, redrawn in place at most ten times per second, or a line every log_every steps
  // (0: never) and at the last step. With a null `out`, as on ranks other than 0, prints nothing.
  Progress(std::FILE* out, int64_t log_every, ProgressStyle style = ProgressStyle::kAuto);
  ~Progress();  // ends the line of the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Update(const ProgressState& state);
  // Prints a line above the bar.
  void Print(std::string_view line);
  // Prints `text` after a label of at most 13 columns, wrapped at the terminal's width.
  void PrintRow(const std::string& label, const std::string& text);

 private:
  void ClearBar();

  std::FILE* out_;
  int64_t log_every_;
  bool bar_;
  bool bar_drawn_ = false;
  std::chrono::steady_clock::time_point next_draw_{};
};

}  // namespace deeper
