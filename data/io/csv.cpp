#include "data/io/csv.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/ascii.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

class CsvParser {
 public:
  explicit CsvParser(absl::string_view text) : rest_(text) {}

  absl::StatusOr<std::vector<CsvRow>> Parse() {
    if (rest_.find('\0') != rest_.npos) return InvalidArgument("not UTF-8 text; save it as UTF-8");
    std::vector<CsvRow> rows;
    while (!rest_.empty()) {
      CsvRow row{line_, {}};
      do {
        ASSIGN_OR_RETURN(std::string cell, TakeCell());
        row.cells.push_back(std::move(cell));
      } while (TakeComma());
      TakeLineEnd();
      const bool blank = row.cells.size() == 1 && row.cells[0].empty();
      if (!blank) rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  // Up to a comma or the end of the line.
  absl::StatusOr<std::string> TakeCell() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size()));
    std::string cell;
    if (!rest_.empty() && rest_[0] == '"') {
      ASSIGN_OR_RETURN(cell, TakeQuoted());
      const absl::string_view behind = absl::StripAsciiWhitespace(TakePlain());
      if (!behind.empty()) return InvalidArgument("line ", line_, ": text behind a closing quote: ", behind);
      return cell;
    }
    return std::string(absl::StripAsciiWhitespace(TakePlain()));
  }

  absl::string_view TakePlain() {
    const absl::string_view plain = rest_.substr(0, rest_.find_first_of(",\r\n"));
    rest_.remove_prefix(plain.size());
    return plain;
  }

  absl::StatusOr<std::string> TakeQuoted() {
    const int64_t begin = line_;
    std::string cell;
    for (rest_.remove_prefix(1);; rest_.remove_prefix(1)) {
      if (rest_.empty()) return InvalidArgument("line ", begin, ": a quote is not closed");
      if (rest_[0] == '"') {
        rest_.remove_prefix(1);
        if (rest_.empty() || rest_[0] != '"') return cell;
      }
      line_ += rest_[0] == '\n' ? 1 : 0;
      cell.push_back(rest_[0]);
    }
  }

  bool TakeComma() {
    const bool comma = !rest_.empty() && rest_[0] == ',';
    if (comma) rest_.remove_prefix(1);
    return comma;
  }

  void TakeLineEnd() {
    if (!rest_.empty()) rest_.remove_prefix(rest_.substr(0, 2) == "\r\n" ? 2 : 1);
    ++line_;
  }

  absl::string_view rest_;
  int64_t line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<CsvRow>> ParseCsv(absl::string_view text) {
  return CsvParser(text).Parse();
}

}  // namespace deeper
