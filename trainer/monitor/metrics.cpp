#include "trainer/monitor/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/io/atomic_file.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

using Json = nlohmann::ordered_json;

// Whether the file's last line lacks its newline, for example because a write was killed halfway.
bool EndsMidLine(const File& file) {
  const uint64_t size = file.Size().value_or(0);
  char last = '\n';
  return size > 0 && file.ReadAt(size - 1, &last, 1).ok() && last != '\n';
}

// Renames a file that holds anything to the first free PATH.N, N = 1, 2, ...; returns that name, or "" if
// there was none. Pipes and devices stay, and so do files behind /dev and /proc: /dev/stdout may be a log.
absl::StatusOr<std::string> MoveAside(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool is_file = fs::is_regular_file(path, error) && fs::file_size(path, error) > 0;
  if (!is_file || path.starts_with("/dev/") || path.starts_with("/proc/")) return "";
  const std::string file = fs::canonical(path, error);  // a link to it stays
  int number = 1;
  while (fs::exists(fs::symlink_status(absl::StrCat(file, ".", number), error))) ++number;
  std::string aside = absl::StrCat(file, ".", number);
  RETURN_IF_ERROR(RenameDurably(file, aside));
  return aside;
}

// Seconds since 1970, to the millisecond.
double Now() {
  const std::chrono::duration<double> since = std::chrono::system_clock::now().time_since_epoch();
  return std::round(1e3 * since.count()) / 1e3;
}

// The fields of an event that TensorBoard draws as curves.
std::vector<Scalar> ScalarsOf(const Event& event) {
  const std::string folder = event.name == "step" ? "train/" : "eval/";
  std::vector<Scalar> scalars;
  for (const auto& [name, value] : event.fields.items()) {
    if (value.is_number() && name != "step") scalars.emplace_back(folder + name, value.get<double>());
  }
  return scalars;
}

}  // namespace

Event EvalEvent(int64_t step, const EvalResult& result, const std::string& split, Tta tta) {
  const auto count = static_cast<double>(result.count);
  const double top1 = static_cast<double>(result.top1) / count,
               top5 = static_cast<double>(result.top5) / count;
  return {"eval",
          {{"step", step},
           {"top1", top1},
           {"top5", top5},
           {"loss", result.loss},
           {"count", result.count},
           {"split", split},
           {"tta", NameOf(tta)}},
          absl::StrFormat("evaluation at step %d: top-1 %.4f, top-5 %.4f, loss %.4f over %d samples", step,
                          top1, top5, result.loss, result.count)};
}

absl::StatusOr<MetricsWriter> MetricsWriter::Open(const std::string& path, Mode mode) {
  MetricsWriter writer;
  RETURN_IF_ERROR(writer.AddFile(path, mode));
  return writer;
}

absl::Status MetricsWriter::AddFile(const std::string& path, Mode mode) {
  RETURN_IF_ERROR(CreateParentDirectory(path));
  if (mode == Mode::kRestart) {
    ASSIGN_OR_RETURN(moved_to_, MoveAside(path));
  }
  ASSIGN_OR_RETURN(file_, File::Open(path, O_RDWR | O_CREAT | O_APPEND));
  return EndsMidLine(file_) ? Append("\n") : absl::OkStatus();
}

absl::Status MetricsWriter::AddTensorBoard(const std::string& directory, int64_t first_step) {
  ASSIGN_OR_RETURN(tensorboard_, EventFile::Create(directory, first_step, Now()));
  return absl::OkStatus();
}

absl::Status MetricsWriter::Write(const Event& event) {
  const double time = Now();
  absl::Status status;
  if (tensorboard_.has_value() && (event.name == "step" || event.name == "eval"))
    status.Update(tensorboard_->Append(event.fields.at("step"), time, ScalarsOf(event)));
  if (file_.fd() < 0) return status;
  Json line = {{"event", event.name}};
  line.update(event.fields);
  line["time"] = time;
  // `replace`: a path or a name that is not UTF-8 must not lose the line.
  status.Update(Append(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"));
  return status;
}

// Not File::WriteAt: a pipe has no positions. All of the text or, on a full disk, nothing: the next line
// would continue an incomplete one.
absl::Status MetricsWriter::Append(std::string_view text) {
  const uint64_t size = file_.Size().value_or(0);
  const size_t all = text.size();
  while (!text.empty()) {
    const ssize_t written = write(file_.fd(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      absl::Status failed = IoError("write metrics to", file_.path(), errno);
      if (text.size() < all) [[maybe_unused]]
        const int not_a_pipe = ftruncate(file_.fd(), static_cast<off_t>(size));
      return failed;
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace deeper
