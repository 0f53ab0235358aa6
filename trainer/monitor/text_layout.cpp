#include "trainer/monitor/text_layout.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace deeper {

int TerminalColumns(std::FILE* out) {
  winsize size{};
  return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

int TextColumns(std::FILE* out, int most) {
  const char* const variable = std::getenv("COLUMNS");
  int columns = 0;
  if (variable == nullptr || !absl::SimpleAtoi(variable, &columns) || columns <= 0)
    columns = TerminalColumns(out);
  return std::clamp(columns > 0 ? columns : kPipeColumns, kFewestColumns, most);
}

std::string Wrapped(const std::string& label, const std::string& text, int start, int indent, int columns) {
  const auto begin = static_cast<size_t>(indent), limit = static_cast<size_t>(columns);
  std::string out, line(static_cast<size_t>(start), ' ');
  line += label;
  const auto end_line = [&] {
    absl::StrAppend(&out, absl::StripTrailingAsciiWhitespace(line), "\n");
    line.clear();
  };
  if (!label.empty() && line.size() >= begin) end_line();
  line.resize(begin, ' ');
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (line.size() > begin && line.size() + 1 + word.size() > limit) {
      end_line();
      line.resize(begin, ' ');
    }
    absl::StrAppend(&line, line.size() > begin ? " " : "", word);
  }
  end_line();
  return out;
}

std::string FormatTable(std::string_view align, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(align.size());
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : "  ", align[i] == 'r' ? gap : "", row[i],
                      align[i] == 'r' ? "" : gap);
    }
    absl::StrAppend(&out, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return out;
}

}  // namespace deeper
