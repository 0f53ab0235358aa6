#include "trainer/engine/evaluate.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "comm/agree.h"
#include "data/io/atomic_file.h"
#include "data/io/hdf5_file.h"
#include "data/load/matched_classes.h"
#include "kernels/base/clock.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/run_config.h"
#include "launch/commands/classifier.h"
#include "launch/commands/eval_report.h"
#include "trainer/monitor/metrics.h"
#include "trainer/run/inputs.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "eval",
    .summary = "computes the exact top-1 and top-5 accuracy of a checkpoint on a split",
    .operands = "",
    .details =
        R"(Classifies every image of a split exactly once, on any number of ranks. The network and the
normalisation of its images are those of the checkpoint, unless flags override them. The classes of
the data set are matched by name to those of the checkpoint, in any order. --report writes the accuracy of
each class, the confusion matrix and the most confident mistakes to a file, which `report` shows.)",
    .examples =
        R"(deeper eval --checkpoint=runs/fashion-mnist --data=datasets/fashion-mnist --report=eval.json
mpirun -n 4 deeper eval --init_from=weights.h5 --data=datasets/imagenet --logits_out=logits.h5)",
    .distributed = true,
};

// --logits_out: an HDF5 file of /logits [samples, classes] float32 and /labels [samples] u32, in the order of
// the samples. All ranks write their rows to the same file, which gets its final name when it is complete.
class LogitsFile {
 public:
  // Create and Commit are collective, and fail on all ranks alike.
  static absl::StatusOr<LogitsFile> Create(const std::string& path, const Dataset& dataset, int64_t classes,
                                           Communicator& comm) {
    LogitsFile logits;
    logits.path_ = path;
    logits.classes_ = classes;
    RETURN_IF_ERROR(Agree(comm, comm.rank() == 0 ? logits.Lay(dataset) : absl::OkStatus()));
    comm.Broadcast(&logits.offset_, sizeof logits.offset_, 0, {}).Wait();
    ASSIGN_OR_RETURN(logits.file_, Agree(comm, File::Open(path + kTemporarySuffix, O_WRONLY)));
    return logits;
  }

  // Keeps the first error for Commit.
  void Write(const Batch& batch, const float* logits) {
    const uint64_t row_bytes = static_cast<uint64_t>(classes_) * sizeof(float);
    for (int64_t row = 0; row < batch.rows && status_.ok(); ++row)
      status_ = file_.WriteAt(offset_ + batch.samples[row] * row_bytes, logits + row * classes_, row_bytes);
  }

  absl::Status Commit(Communicator& comm) {
    if (status_.ok()) status_ = file_.Sync();
    RETURN_IF_ERROR(Agree(comm, status_));
    return Agree(comm, comm.rank() == 0 ? RenameDurably(path_ + kTemporarySuffix, path_) : absl::OkStatus());
  }

 private:
  // Writes the file without the bytes of /logits.
  absl::Status Lay(const Dataset& dataset) {
    const auto samples = static_cast<uint64_t>(dataset.info().samples);
    ASSIGN_OR_RETURN(Hdf5File file, Hdf5File::Create(path_ + kTemporarySuffix));
    offset_ = file.Reserve("logits", Hdf5Type::kF32, {samples, static_cast<uint64_t>(classes_)}).offset;
    std::vector<uint32_t> labels(samples);
    for (uint64_t i = 0; i < samples; ++i)
      labels[i] = static_cast<uint32_t>(dataset.label(static_cast<int64_t>(i)));
    file.Write("labels", labels);
    return file.Close();
  }

  std::string path_;
  File file_;
  uint64_t offset_ = 0;  // of /logits in the file
  int64_t classes_ = 0;
  absl::Status status_;
};

class EvalCommand final : public Command {
 public:
  EvalCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    RunConfig& c = flags_.config;
    std::vector<FlagGroup> groups = flags_.Groups();
    groups.back() = With(groups.back(), Pick(c, "", {"watchdog_seconds"}).flags);
    groups.push_back(With(
        Pick(c, "Data and results", {"data", "synthetic", "synthetic_samples", "stage_dir", "direct_io"}),
        {{"split", &c.val_split, "split of --data"},
         {"tta", &tta_, "test-time augmentation; report its results as such"},
         {"logits_out", &logits_out_, "HDF5 file to write: /logits [samples, classes], /labels [samples]"},
         {"report", &report_out_, "JSON file to write for `deeper report`: classes, confusions, mistakes"},
         {"metrics_out", &c.metrics_out, "file of JSON lines, to which the result is appended"}}));
    return groups;
  }

  absl::Status Run(const Invocation& call) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Watchdog> watchdog, StartWatchdog(flags_.config, call.comm));
    const RunConfig& given = flags_.config;
    std::unique_ptr<Dataset> dataset;
    if (!given.synthetic && !given.data.empty()) {
      ASSIGN_OR_RETURN(dataset, OpenDataset(given, given.data, given.val_split, call.comm));
    }
    const int64_t samples = dataset != nullptr ? dataset->info().samples : given.synthetic_samples;
    const int64_t mine = (samples + call.comm.size() - 1) / call.comm.size();
    ASSIGN_OR_RETURN(Classifier classifier, OpenClassifier(flags_, mine, call.comm));
    if (dataset == nullptr) {  // generated, of the checkpoint's size, channels and classes
      ASSIGN_OR_RETURN(
          dataset, OpenDataset(classifier.config, "", given.val_split, call.comm, classifier.input.channels));
    }
    ASSIGN_OR_RETURN(const MatchedData matched, Agree(call.comm, Match(std::move(dataset), classifier)));
    if (call.is_root()) Warn(matched.notes);
    RETURN_IF_ERROR(Agree(call.comm, call.is_root() ? CheckOutputs() : absl::OkStatus()));
    std::optional<Predictions> predictions;
    if (!report_out_.empty()) predictions.emplace(matched.data->info().samples);
    const double start = Seconds();
    ASSIGN_OR_RETURN(const EvalResult result, Count(classifier, *matched.data, call.comm, predictions));
    const double seconds = Seconds() - start;
    if (predictions) predictions->Gather(call.comm);
    absl::Status reported;
    if (call.is_root()) {
      Print(classifier, result, seconds);
      const Event event = EvalEvent(classifier.step, result, given.val_split, tta_);
      if (predictions) {
        reported.Update(WriteEvalReport(report_out_, Summary(classifier, event), *predictions, *matched.data,
                                        classifier.classes));
      }
      reported.Update(AppendMetrics(event));
    }
    return Agree(call.comm, reported);
  }

 private:
  absl::Status CheckOutputs() const {
    const std::string& metrics_out = flags_.config.metrics_out;
    if (!metrics_out.empty())
      RETURN_IF_ERROR(MetricsWriter::Open(metrics_out, MetricsWriter::Mode::kAppend).status());
    for (const std::string& output : {logits_out_, report_out_})
      if (!output.empty()) RETURN_IF_ERROR(CheckWritable(output));
    return absl::OkStatus();
  }

  // Generated images have no classes that the network could know by name.
  static absl::StatusOr<MatchedData> Match(std::unique_ptr<Dataset> dataset, const Classifier& classifier) {
    if (classifier.config.synthetic) return MatchedData{std::move(dataset), {}};
    return WithExitCode(
        MatchClasses(std::move(dataset), classifier.classes, classifier.net->model().num_classes),
        ExitCode::kData);
  }

  absl::StatusOr<EvalResult> Count(Classifier& classifier, const Dataset& dataset, Communicator& comm,
                                   std::optional<Predictions>& predictions) const {
    absl::StatusOr<EvalResult> result = CountAndWrite(classifier, dataset, comm, predictions);
    if (!result.ok() && !logits_out_.empty() && comm.rank() == 0)
      unlink((logits_out_ + kTemporarySuffix).c_str());
    return result;
  }

  absl::StatusOr<EvalResult> CountAndWrite(Classifier& classifier, const Dataset& dataset, Communicator& comm,
                                           std::optional<Predictions>& predictions) const {
    const int64_t classes = classifier.net->model().num_classes;
    std::optional<LogitsFile> file;
    if (!logits_out_.empty()) {
      ASSIGN_OR_RETURN(file, LogitsFile::Create(logits_out_, dataset, classes, comm));
    }
    const auto keep = [&](const Batch& batch, const float* logits) {
      if (file) file->Write(batch, logits);
      if (predictions) predictions->Add(batch, logits, classes);
    };
    std::function<void(const Batch&, const float*)> on_batch;  // without one, the host reads no logits
    if (file || predictions) on_batch = keep;
    ASSIGN_OR_RETURN(const EvalResult result, Evaluate(*classifier.net, *classifier.device, dataset,
                                                       classifier.input, comm, tta_, on_batch));
    if (file) RETURN_IF_ERROR(file->Commit(comm));
    return result;
  }

  static nlohmann::ordered_json Summary(const Classifier& classifier, const Event& event) {
    nlohmann::ordered_json summary = {{"report", "evaluation"},
                                      {"model", classifier.config.model},
                                      {"weights", classifier.weights},
                                      {"data", classifier.config.data}};
    summary.update(event.fields);
    return summary;
  }

  void Print(const Classifier& classifier, const EvalResult& result, double seconds) const {
    const auto count = static_cast<double>(result.count);
    const double top1 = static_cast<double>(result.top1) / count,
                 top5 = static_cast<double>(result.top5) / count;
    std::printf("%s: %s%s\n", classifier.config.model.c_str(), classifier.weights.c_str(),
                tta_ == Tta::kFlip ? ", mean logits of each image and its mirror image" : "");
    std::printf("top-1 %.2f %%  top-5 %.2f %%  loss %.4f  (%ld and %ld of %ld images right; %.0f images/s)\n",
                100 * top1, 100 * top5, result.loss, result.top1, result.top5, result.count, count / seconds);
  }

  absl::Status AppendMetrics(const Event& event) const {
    if (flags_.config.metrics_out.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(MetricsWriter metrics,
                     MetricsWriter::Open(flags_.config.metrics_out, MetricsWriter::Mode::kAppend));
    return metrics.Write(event);
  }

  ClassifierFlags flags_;
  std::string logits_out_, report_out_;
  Tta tta_ = Tta::kNone;
};

}  // namespace

std::unique_ptr<Command> MakeEval() {
  return std::make_unique<EvalCommand>();
}

}  // namespace deeper
