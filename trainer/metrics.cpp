#include "trainer/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_format.h"

namespace deeper {
namespace {

using Event = nlohmann::ordered_json;  // keys in the order written here: for people who read along

// Whether the file's last line lacks its newline, as after a process that was killed in the middle of a
// write.
bool EndsMidLine(const File& file) {
  const uint64_t size = file.Size().value_or(0);
  char last = '\n';
  return size > 0 && file.ReadAt(size - 1, &last, 1).ok() && last != '\n';
}

}  // namespace

absl::StatusOr<MetricsWriter> MetricsWriter::Open(const std::string& path, Mode mode) {
  absl::StatusOr<File> file =
      File::Open(path, O_RDWR | O_CREAT | O_APPEND | (mode == Mode::kRestart ? O_TRUNC : 0));
  if (!file.ok()) return file.status();
  MetricsWriter writer(*std::move(file));
  if (EndsMidLine(writer.file_)) {
    if (absl::Status status = writer.Append("\n"); !status.ok()) return status;
  }
  return writer;
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
  event["peer_wait_ms"] = metrics.peer_wait_ms;
  event["samples"] = absl::StrFormat("%016x", metrics.samples);
  event["nonfinite_steps"] = metrics.nonfinite_steps;
  return Write(event);
}

absl::Status MetricsWriter::Eval(const EvalMetrics& metrics) {
  return Write({{"event", "eval"},
                {"step", metrics.step},
                {"top1", metrics.top1},
                {"top5", metrics.top5},
                {"count", metrics.count}});
}

absl::Status MetricsWriter::Checkpoint(const CheckpointMetrics& metrics) {
  return Write({{"event", "checkpoint"},
                {"step", metrics.step},
                {"path", metrics.path},
                {"seconds", metrics.seconds},
                {"stall_ms", metrics.stall_ms},
                {"wait_ms", metrics.wait_ms}});
}

absl::Status MetricsWriter::CheckpointFailed(int64_t step, const std::string& reason) {
  return Write({{"event", "checkpoint_failed"}, {"step", step}, {"reason", reason}});
}

absl::Status MetricsWriter::NonFinite(int64_t step, const std::string& reason) {
  return Write({{"event", "nonfinite"}, {"step", step}, {"reason", reason}});
}

absl::Status MetricsWriter::Done(int64_t step, double seconds) {
  return Write({{"event", "done"}, {"step", step}, {"seconds", seconds}});
}

absl::Status MetricsWriter::Write(const nlohmann::ordered_json& event) {
  if (file_.fd() < 0) return absl::OkStatus();
  // `replace`: a path or a name that is not UTF-8 must not cost the line.
  return Append(event.dump(-1, ' ', false, Event::error_handler_t::replace) + "\n");
}

// Not File::WriteAt: a pipe has no positions.
absl::Status MetricsWriter::Append(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(file_.fd(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return IoError("write metrics to", file_.path(), errno);
    text.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace deeper
