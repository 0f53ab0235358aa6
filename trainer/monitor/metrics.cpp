#include "trainer/monitor/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>

#include "absl/strings/str_format.h"
#include "kernels/base/status.h"

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

// Seconds since 1970, to the millisecond.
double Now() {
  const std::chrono::duration<double> since = std::chrono::system_clock::now().time_since_epoch();
  return std::round(1e3 * since.count()) / 1e3;
}

// What of an event is a curve.
std::vector<Scalar> ScalarsOf(const Event& event) {
  const std::string folder = event["event"] == "step" ? "train/" : "eval/";
  std::vector<Scalar> scalars;
  for (const auto& [name, value] : event.items()) {
    if (value.is_number() && name != "step") scalars.emplace_back(folder + name, value.get<double>());
  }
  return scalars;
}

}  // namespace

absl::StatusOr<MetricsWriter> MetricsWriter::Open(const std::string& path, Mode mode) {
  ASSIGN_OR_RETURN(File file,
                   File::Open(path, O_RDWR | O_CREAT | O_APPEND | (mode == Mode::kRestart ? O_TRUNC : 0)));
  MetricsWriter writer(std::move(file));
  if (EndsMidLine(writer.file_)) {
    RETURN_IF_ERROR(writer.Append("\n"));
  }
  return writer;
}

absl::Status MetricsWriter::AddTensorBoard(const std::string& directory, int64_t first_step) {
  ASSIGN_OR_RETURN(tensorboard_, EventFile::Create(directory, first_step, Now()));
  return absl::OkStatus();
}

absl::Status MetricsWriter::Start(const nlohmann::json& config, const Event& run) {
  return Write({{"event", "start"}, {"config", config}, {"run", run}});
}

absl::Status MetricsWriter::Resume(int64_t step, const std::string& checkpoint, const Event& run) {
  return Write({{"event", "resume"}, {"step", step}, {"path", checkpoint}, {"run", run}});
}

absl::Status MetricsWriter::Step(const StepMetrics& metrics) {
  Event event = {{"event", "step"}, {"step", metrics.step}, {"epoch", metrics.epoch}, {"loss", metrics.loss}};
  for (const auto& [head, loss] : metrics.head_losses) event["loss_" + head] = loss;
  event["lr"] = metrics.lr;
  event["images_per_second"] = metrics.images_per_second;
  event["data_wait_ms"] = metrics.data_wait_ms;
  event["compute_ms"] = metrics.compute_ms;
  event["read_ms"] = metrics.read_ms;
  event["decode_ms"] = metrics.decode_ms;
  event["augment_ms"] = metrics.augment_ms;
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
                {"loss", metrics.loss},
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

absl::Status MetricsWriter::Bottleneck(int64_t step, const std::string& stage, const std::string& what) {
  return Write({{"event", "bottleneck"}, {"step", step}, {"stage", stage}, {"what", what}});
}

absl::Status MetricsWriter::BadSample(int64_t step, const std::string& what) {
  return Write({{"event", "bad_sample"}, {"step", step}, {"what", what}});
}

absl::Status MetricsWriter::NonFinite(int64_t step, const std::string& reason) {
  return Write({{"event", "nonfinite"}, {"step", step}, {"reason", reason}});
}

absl::Status MetricsWriter::Straggler(int64_t step, const std::string& what) {
  return Write({{"event", "straggler"}, {"step", step}, {"what", what}});
}

absl::Status MetricsWriter::Done(int64_t step, double seconds) {
  return Write({{"event", "done"}, {"step", step}, {"seconds", seconds}});
}

absl::Status MetricsWriter::Write(Event event) {
  const double time = Now();
  absl::Status status;
  if (tensorboard_.has_value() && (event["event"] == "step" || event["event"] == "eval"))
    status.Update(tensorboard_->Append(event["step"], time, ScalarsOf(event)));
  if (file_.fd() < 0) return status;
  event["time"] = time;
  // `replace`: a path or a name that is not UTF-8 must not cost the line.
  status.Update(Append(event.dump(-1, ' ', false, Event::error_handler_t::replace) + "\n"));
  return status;
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
