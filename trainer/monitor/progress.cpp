#include "trainer/monitor/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "trainer/monitor/text_layout.h"

namespace deeper {
namespace {

constexpr int kSmallestBar = 10;  // a shorter one shows too little
constexpr int kWidestBar = 40;

constexpr int kMostRowColumns = 160;
constexpr int kRowIndent = 14;

int BarColumns(std::FILE* out) {
  const int columns = TerminalColumns(out);
  return columns > 0 ? columns : TextColumns(out, kMostRowColumns);
}

// N/TOTAL, as wide as TOTAL/TOTAL, so that columns stay in place.
std::string Count(int64_t n, int64_t total) {
  const std::string limit = absl::StrCat(total);
  return absl::StrFormat("%-*s", static_cast<int>(2 * limit.size() + 1), absl::StrCat(n, "/", limit));
}

}  // namespace

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  const auto total = static_cast<int64_t>(std::max(0.0, std::round(seconds)));
  const int64_t minutes = total / 60 % 60, hours = total / 3600 % 24, days = total / 86400;
  if (days > 0) return absl::StrFormat("%dd %02d:%02d", days, hours, minutes);
  return absl::StrFormat("%d:%02d:%02d", hours, minutes, total % 60);
}

static int64_t LastStep(const ProgressState& state) {
  return state.last_step > 0 ? state.last_step : state.total_steps;
}

std::string FormatProgressLine(const ProgressState& state) {
  std::string line = absl::StrCat("step ", Count(state.step, state.total_steps));
  if (state.epochs > 0) absl::StrAppend(&line, "  epoch ", Count(state.epoch + 1, state.epochs));
  const auto images_left = static_cast<double>((LastStep(state) - state.step) * state.global_batch);
  absl::StrAppendFormat(&line, "  loss %7.4f  lr %-9.4g  %6.*f images/s  ETA %s", state.loss, state.lr,
                        state.images_per_second < 100 ? 1 : 0, state.images_per_second,
                        FormatDuration(images_left / state.images_per_second));
  return line;
}

std::string FormatProgressBar(const ProgressState& state, int columns) {
  const auto total = static_cast<double>(state.total_steps);
  const double done = total <= 0 ? 0 : std::clamp(static_cast<double>(state.step) / total, 0.0, 1.0);
  std::string line = absl::StrFormat("%3d%% ", static_cast<int>(done * 100));
  std::string text = FormatProgressLine(state);
  if (static_cast<int>(line.size() + text.size()) > columns) absl::RemoveExtraAsciiWhitespace(&text);
  // "[", "]  " around the bar take four columns.
  const int bar = std::min(kWidestBar, columns - static_cast<int>(line.size() + text.size()) - 4);
  if (bar >= kSmallestBar) {
    const auto filled = static_cast<size_t>(done * bar);
    absl::StrAppend(&line, "[", std::string(filled, '#'), std::string(static_cast<size_t>(bar) - filled, '-'),
                    "]  ");
  }
  line += text;
  return line.substr(0, static_cast<size_t>(std::max(columns, 0)));
}

Progress::Progress(std::FILE* out, int64_t log_every, ProgressStyle style)
    : out_(out), log_every_(log_every), bar_(style == ProgressStyle::kBar) {
  if (style == ProgressStyle::kAuto && out != nullptr) bar_ = isatty(fileno(out)) == 1;
}

Progress::~Progress() {
  if (!bar_drawn_) return;
  std::fputc('\n', out_);
  std::fflush(out_);
}

void Progress::Update(const ProgressState& state) {
  if (out_ == nullptr) return;
  const bool last = state.step >= LastStep(state);
  if (!bar_) {
    if (last || (log_every_ > 0 && state.step % log_every_ == 0)) Print(FormatProgressLine(state));
    return;
  }
  const auto now = std::chrono::steady_clock::now();
  if (now < next_draw_ && !last) return;
  next_draw_ = now + std::chrono::milliseconds(100);
  ClearBar();
  // One column stays free: a terminal wraps a line that fills it.
  std::fputs(FormatProgressBar(state, BarColumns(out_) - 1).c_str(), out_);
  std::fflush(out_);
  bar_drawn_ = true;
}

void Progress::Print(std::string_view line) {
  if (out_ == nullptr) return;
  ClearBar();
  std::fwrite(line.data(), 1, line.size(), out_);
  std::fputc('\n', out_);
  std::fflush(out_);
}

void Progress::PrintRow(const std::string& label, const std::string& text) {
  if (out_ == nullptr) return;
  std::string rows = Wrapped(label, text, 0, kRowIndent, TextColumns(out_, kMostRowColumns));
  rows.pop_back();  // Print ends the line
  Print(rows);
}

void Progress::ClearBar() {
  if (bar_drawn_) std::fputs("\r\x1b[K", out_);
  bar_drawn_ = false;
}

}  // namespace deeper
