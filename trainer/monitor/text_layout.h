// Layout of text for people: width of the output, wrapped paragraphs, tables.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace deeper {

inline constexpr int kFewestColumns = 80, kPipeColumns = 100;

// Columns of the terminal that `out` is; 0 if it is none, or does not know.
int TerminalColumns(std::FILE* out);
// Columns for text on `out`, between kFewestColumns and `most`: $COLUMNS, else those of the terminal, else
// kPipeColumns.
int TextColumns(std::FILE* out, int most);

// `label` at column `start`, then `text` at column `indent`, broken at spaces into lines of at most `columns`
// columns, each with a newline. The text begins on the next line if the label reaches `indent`.
std::string Wrapped(const std::string& label, const std::string& text, int start, int indent, int columns);

// Lines of cells, two spaces apart. align: 'l' or 'r' per column.
std::string FormatTable(std::string_view align, const std::vector<std::vector<std::string>>& rows);

}  // namespace deeper
