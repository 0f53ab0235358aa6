// A list of images: a CSV file with a path and a label per line, and any header that names such columns.
#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "data/io/csv.h"
#include "data/io/file.h"
#include "data/sources/labels.h"
#include "data/sources/source.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

namespace fs = std::filesystem;

constexpr std::array<absl::string_view, 7> kPathColumns = {"path",  "file",       "filename",  "file_name",
                                                           "image", "image_path", "image_file"};
constexpr std::array<absl::string_view, 4> kLabelColumns = {"label", "class", "class_name", "target"};

struct Columns {
  size_t path = 0, label = 1, count = 2;
  bool has_header = false;
  std::vector<std::string> unused;
};

// The position of the cell that is one of `names`, or the number of cells. InvalidArgument: several are.
absl::StatusOr<size_t> FindColumn(const CsvRow& header, const auto& names) {
  size_t found = header.cells.size();
  for (size_t i = 0; i < header.cells.size(); ++i) {
    if (std::ranges::find(names, absl::AsciiStrToLower(header.cells[i])) == names.end()) continue;
    if (found < header.cells.size())
      return InvalidArgument("the columns ", header.cells[found], " and ", header.cells[i],
                             " have the same meaning; rename or remove one");
    found = i;
  }
  return found;
}

absl::StatusOr<Columns> FindColumns(const CsvRow& first) {
  Columns columns;
  columns.count = first.cells.size();
  ASSIGN_OR_RETURN(const size_t path, FindColumn(first, kPathColumns));
  ASSIGN_OR_RETURN(const size_t label, FindColumn(first, kLabelColumns));
  columns.has_header = path < columns.count && label < columns.count;
  if (columns.has_header) {
    columns.path = path;
    columns.label = label;
    for (size_t i = 0; i < columns.count; ++i) {
      if (i != path && i != label) columns.unused.push_back(first.cells[i]);
    }
  } else if (path < columns.count || label < columns.count) {
    return InvalidArgument("the header ", absl::StrJoin(first.cells, ","), " has no column for the ",
                           path < columns.count ? "label" : "path", "; call it ",
                           path < columns.count ? "label" : "path");
  } else if (columns.count != 2) {
    return InvalidArgument(
        "line ", first.line, " has ", columns.count, " cells: ", absl::StrJoin(first.cells, ","),
        "; expected lines PATH,LABEL, or a header with a ", "column ", absl::StrJoin(kPathColumns, "|"),
        " and a column ", absl::StrJoin(kLabelColumns, "|"));
  }
  return columns;
}

struct List {
  std::vector<ImageFile> images;
  std::vector<TextLabel> labels;
  std::vector<std::string> unused_columns;
  bool has_header = false;
};

absl::StatusOr<List> ReadList(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  ASSIGN_OR_RETURN(const std::vector<CsvRow> rows, ParseCsv(text));
  if (rows.empty()) return InvalidArgument("no lines");
  ASSIGN_OR_RETURN(const Columns columns, FindColumns(rows[0]));
  List list{{}, {}, columns.unused, columns.has_header};
  std::map<std::string, int64_t> lines;  // of the paths
  for (size_t i = columns.has_header ? 1 : 0; i < rows.size(); ++i) {
    const CsvRow& row = rows[i];
    if (row.cells.size() != columns.count) {
      return InvalidArgument("line ", row.line, " has ", row.cells.size(), " cells, and line ", rows[0].line,
                             " ", columns.count, "; put cells with commas into double quotes");
    }
    const std::string &image = row.cells[columns.path], &label = row.cells[columns.label];
    if (image.empty() || label.empty())
      return InvalidArgument("line ", row.line, " has an empty path or label");
    const auto [first, is_new] = lines.emplace(fs::path(image).lexically_normal(), row.line);
    if (!is_new) return InvalidArgument("lines ", first->second, " and ", row.line, " both name ", image);
    list.images.push_back({image});
    list.labels.push_back({label, absl::StrCat(path, ", line ", row.line)});
  }
  return list;
}

// Names of columns have no ending, and are labels of no image.
bool IsLikeAHeader(const std::string& root, const List& list) {
  const fs::path first = list.images[0].name;
  std::error_code unknown;
  return !first.has_extension() && !fs::exists(root / first, unknown) &&
         std::ranges::count(list.labels, list.labels[0].text, &TextLabel::text) == 1;
}

// A file that does not exist will be a bad image, with its name. All of them are a wrong folder or header.
absl::Status CheckFiles(const std::string& root, const List& list) {
  bool any = false;
  for (const ImageFile& image : list.images) {
    std::error_code unknown;  // reading the file reports the error
    const fs::file_status status = fs::status(fs::path(root) / image.name, unknown);
    any |= fs::exists(status);
    if (fs::exists(status) && !fs::is_regular_file(status))
      return InvalidArgument(image.name, " in ", root, " is not a regular file");
  }
  if (any && !list.has_header && IsLikeAHeader(root, list)) {
    return InvalidArgument("the first line looks like a header: no file is called ", list.images[0].name,
                           ", and no other line has the label ", list.labels[0].text,
                           "; call its columns path and label");
  }
  if (any || list.images.empty()) return absl::OkStatus();
  return InvalidArgument(
      "none of its ", list.images.size(), " files exists, for example ",
      (fs::path(root) / list.images[0].name).string(), "; --root=DIR sets the folder of relative paths",
      list.has_header ? "" : ". If the first line is a header, call its columns path and label");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageSource>> OpenCsv(const SourceOptions& options) {
  const std::string& input = options.input;
  std::error_code unknown;
  if (fs::is_directory(input, unknown))
    return InvalidArgument("--input=", input, " must be the CSV file, not a folder");
  const auto in_input = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(input, ": ", status.message()));
  };
  absl::StatusOr<List> list = ReadList(input);
  if (!list.ok()) return absl::IsInvalidArgument(list.status()) ? in_input(list.status()) : list.status();
  SourceOptions in_folder = options;
  const fs::path folder = fs::path(input).parent_path();
  in_folder.input = folder.empty() ? std::string(".") : folder.string();
  ASSIGN_OR_RETURN(std::vector<std::string> listed, ListedClasses(in_folder));
  const std::string root = options.root.empty() ? in_folder.input : options.root;
  if (absl::Status checked = CheckFiles(root, *list); !checked.ok()) return in_input(checked);
  ASSIGN_OR_RETURN(NumberedLabels numbered, NumberLabels(list->labels, std::move(listed)));
  for (size_t i = 0; i < list->images.size(); ++i) list->images[i].label = numbered.labels[i];
  auto source = MakeFileSource(root, {}, std::move(list->images), std::move(numbered.classes));
  WarnOfEmptyClasses(source.get());
  if (!list->unused_columns.empty())
    source->Note(absl::StrCat("columns that are not used: ", absl::StrJoin(list->unused_columns, ", ")));
  return source;
}

}  // namespace deeper
