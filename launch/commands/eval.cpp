#include "trainer/engine/evaluate.h"

#include <chrono>
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "comm/agree.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/command.h"
#include "launch/cli/placement.h"
#include "launch/cli/run_flags.h"
#include "launch/commands/classifier.h"
#include "launch/commands/logits_file.h"
#include "trainer/monitor/metrics.h"

namespace deeper {
namespace {

constexpr CommandText kText = {
    .name = "eval",
    .summary = "exact top-1 and top-5 accuracy of a checkpoint over a split",
    .operands = "",
    .details =
        "Classifies every image of a split once, on any number of ranks, and counts. The checkpoint says "
        "which\n"
        "network it is of and how its images were normalised; flags override.",
    .examples =
        "deeper eval --checkpoint=runs/fashion-mnist --data=datasets/fashion-mnist\n"
        "mpirun -n 4 deeper eval --init_from=weights.h5 --data=datasets/imagenet --logits_out=logits.h5",
    .distributed = true,
};

class EvalCommand final : public Command {
 public:
  EvalCommand() : Command(kText) {}

  std::vector<FlagGroup> Flags() override {
    RunConfig& c = flags_.config;
    std::vector<FlagGroup> groups = flags_.Groups();
    groups.back().flags.push_back(WatchdogFlag(c));
    groups.push_back({"Data and results",
                      {{"data", &c.data, "directory that `pack` wrote"},
                       {"split", &c.val_split, "split of it"},
                       {"synthetic", &c.synthetic, "images made up on the spot, in place of --data"},
                       {"synthetic_samples", &c.synthetic_samples, "how many"},
                       {"logits_out", &logits_out_, "HDF5 file: /logits [samples, classes], /labels"},
                       {"metrics_out", &c.metrics_out, "file of JSON lines to append the result to"}}});
    return groups;
  }

  absl::Status Run(const Invocation& call) override {
    ASSIGN_OR_RETURN(const std::unique_ptr<Watchdog> watchdog, StartWatchdog(flags_.config, call.comm));
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> made, MakeDeviceFor(flags_.config, call.comm));
    Device& device = *made;
    ASSIGN_OR_RETURN(Classifier classifier, OpenClassifier(flags_, device, call.comm));
    const RunConfig& config = classifier.config;
    const absl::StatusOr<std::unique_ptr<Dataset>> dataset =
        OpenDataset(config, config.data, config.val_split, call.comm);
    const absl::Status opened =
        dataset.ok() ? CheckClasses((*dataset)->info(), classifier) : dataset.status();
    RETURN_IF_ERROR(Agree(call.comm, opened));
    const auto start = std::chrono::steady_clock::now();
    ASSIGN_OR_RETURN(const EvalResult result, Count(classifier, **dataset, device, call.comm));
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return Agree(call.comm, call.is_root() ? Report(classifier, result, seconds.count()) : absl::OkStatus());
  }

 private:
  static absl::Status CheckClasses(const DatasetInfo& data, const Classifier& classifier) {
    const int64_t classes = classifier.net->model().num_classes;
    if (static_cast<int64_t>(data.classes.size()) <= classes) return absl::OkStatus();
    return WithExitCode(absl::InvalidArgumentError(absl::StrCat("the data set has ", data.classes.size(),
                                                                " classes, the network of ",
                                                                classifier.weights, " only ", classes)),
                        ExitCode::kData);
  }

  absl::StatusOr<EvalResult> Count(Classifier& classifier, const Dataset& dataset, Device& device,
                                   Communicator& comm) const {
    if (logits_out_.empty()) return Evaluate(*classifier.net, device, dataset, classifier.input, comm);
    ASSIGN_OR_RETURN(LogitsFile file,
                     LogitsFile::Create(logits_out_, dataset, classifier.net->model().num_classes, comm));
    ASSIGN_OR_RETURN(const EvalResult result,
                     Evaluate(*classifier.net, device, dataset, classifier.input, comm,
                              [&](const Batch& batch, const float* logits) { file.Write(batch, logits); }));
    RETURN_IF_ERROR(file.Commit(comm));
    return result;
  }

  absl::Status Report(const Classifier& classifier, const EvalResult& result, double seconds) const {
    const auto count = static_cast<double>(result.count);
    const double top1 = static_cast<double>(result.top1) / count,
                 top5 = static_cast<double>(result.top5) / count;
    std::printf("%s: %s\n", classifier.config.model.c_str(), classifier.weights.c_str());
    std::printf("top-1 %.2f %%  top-5 %.2f %%  loss %.4f  (%ld and %ld of %ld images right; %.0f images/s)\n",
                100 * top1, 100 * top5, result.loss, result.top1, result.top5, result.count, count / seconds);
    if (flags_.config.metrics_out.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(MetricsWriter metrics,
                     MetricsWriter::Open(flags_.config.metrics_out, MetricsWriter::Mode::kAppend));
    return metrics.Write(EvalEvent(classifier.step, result));
  }

  ClassifierFlags flags_;
  std::string logits_out_;
};

}  // namespace

std::unique_ptr<Command> MakeEval() {
  return std::make_unique<EvalCommand>();
}

}  // namespace deeper
