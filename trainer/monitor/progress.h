// What a person sees of a run: a progress bar on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "kernels/base/choice.h"

namespace deeper {

struct ProgressState {
  int64_t step = 0, total_steps = 0;  // done, of
  int64_t epoch = 0, epochs = 0;      // under way, counted from 0; 0 epochs: not known
  double loss = 0;
  double lr = 0;
  double images_per_second = 0;
  int64_t global_batch = 0;
};

// "0:42", "12:05", "3:07:09", "2d 03:07"; "-" if not finite.
std::string FormatDuration(double seconds);
// "step 1200/9000  epoch 4/90  loss 2.3451  lr 0.1  1234 images/s  ETA 1:02:03"
std::string FormatProgressLine(const ProgressState& state);
// " 13% [####------]  step ...": exactly as FormatProgressLine, after a bar that fills what is left of
// `columns`; cut to `columns` where even the text does not fit.
std::string FormatProgressBar(const ProgressState& state, int columns);

enum class ProgressStyle {
  kAuto,  // a bar where `out` is a terminal
  kBar,
  kLines,
};
constexpr auto Choices(ProgressStyle) {
  return std::to_array<Choice<ProgressStyle>>(
      {{"auto", ProgressStyle::kAuto, "a bar on a terminal, lines elsewhere and under mpirun"},
       {"bar", ProgressStyle::kBar, "redrawn in place"},
       {"lines", ProgressStyle::kLines, "a line every --log_every steps"}});
}

class Progress {
 public:
  // Writes to `out`: a bar, redrawn in place at most ten times a second, or a line each log_every steps (0:
  // never) and at the last step. A null `out` prints nothing: for ranks other than 0.
  Progress(std::FILE* out, int64_t log_every, ProgressStyle style = ProgressStyle::kAuto);
  ~Progress();  // leaves the cursor on a line of its own
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Update(const ProgressState& state);
  // A line of its own, above the bar.
  void Print(std::string_view line);

 private:
  void ClearBar();

  std::FILE* out_;
  int64_t log_every_;
  bool bar_;
  bool bar_drawn_ = false;
  std::chrono::steady_clock::time_point next_draw_{};
};

}  // namespace deeper
