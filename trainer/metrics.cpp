#include "trainer/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace deeper {
namespace {

using Event = nlohmann::ordered_json;  // keys in the order written here: for people who read along

absl::Status FileError(const char* action, const std::string& path) {
  return absl::UnavailableError(
      absl::StrCat("cannot ", action, " metrics file ", path, ": ", std::strerror(errno)));
}

absl::Status WriteAll(int file, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError("write", path);
    text.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

// Whether the file's last line has its newline; a process killed in the middle of a write leaves one without.
bool EndsMidLine(int file) {
  char last = '\n';
  const off_t size = lseek(file, 0, SEEK_END);
  return size > 0 && pread(file, &last, 1, size - 1) == 1 && last != '\n';
}

}  // namespace

absl::StatusOr<MetricsWriter> MetricsWriter::Open(const std::string& path, Mode mode) {
  MetricsWriter writer;
  writer.path_ = path;
  const int flags = O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | (mode == Mode::kRestart ? O_TRUNC : 0);
  writer.file_ = open(path.c_str(), flags, 0666);
  if (writer.file_ < 0) return FileError("open", path);
  if (EndsMidLine(writer.file_)) {
    if (absl::Status status = WriteAll(writer.file_, "\n", path); !status.ok()) return status;
  }
  return writer;
}

MetricsWriter& MetricsWriter::operator=(MetricsWriter&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

MetricsWriter::~MetricsWriter() {
  if (file_ >= 0) close(file_);
}

absl::Status MetricsWriter::Start(const nlohmann::json& config) {
  return Write({{"event", "start"}, {"config", config}});
}

absl::Status MetricsWriter::Resume(int64_t step, const std::string& checkpoint) {
  return Write({{"event", "resume"}, {"step", step}, {"path", checkpoint}});
}

absl::Status MetricsWriter::Step(const StepMetrics& metrics) {
  Event event = {{"event", "step"}, {"step", metrics.step}, {"epoch", metrics.epoch}, {"loss", metrics.loss}};
  for (const auto& [head, loss] : metrics.head_losses) event["loss_" + head] = loss;
  event["lr"] = metrics.lr;
  event["images_per_second"] = metrics.images_per_second;
  event["data_wait_ms"] = metrics.data_wait_ms;
  event["compute_ms"] = metrics.compute_ms;
  event["comm_exposed_ms"] = metrics.comm_exposed_ms;
  return Write(event);
}

absl::Status MetricsWriter::Eval(const EvalMetrics& metrics) {
  return Write({{"event", "eval"},
                {"step", metrics.step},
                {"top1", metrics.top1},
                {"top5", metrics.top5},
                {"count", metrics.count}});
}

absl::Status MetricsWriter::Checkpoint(int64_t step, const std::string& path, double seconds) {
  return Write({{"event", "checkpoint"}, {"step", step}, {"path", path}, {"seconds", seconds}});
}

absl::Status MetricsWriter::Done(int64_t step, double seconds) {
  return Write({{"event", "done"}, {"step", step}, {"seconds", seconds}});
}

absl::Status MetricsWriter::Write(const nlohmann::ordered_json& event) {
  if (file_ < 0) return absl::OkStatus();
  // `replace`: a path or a name that is not UTF-8 must not cost the line.
  return WriteAll(file_, event.dump(-1, ' ', false, Event::error_handler_t::replace) + "\n", path_);
}

}  // namespace deeper
