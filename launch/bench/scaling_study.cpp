#include "launch/bench/scaling_study.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "data/io/file.h"
#include "kernels/base/device.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "trainer/run/config.h"
#include "trainer/scaling/statistics.h"

namespace deeper {
namespace {

using nlohmann::ordered_json;

// The child's exit code if the program cannot be started, as in a shell.
constexpr int kNotStarted = 127;

std::string TextOf(int fd) {
  const absl::StatusOr<std::vector<uint8_t>> bytes = ReadFile(absl::StrCat("/proc/self/fd/", fd));
  return bytes.ok() ? std::string(bytes->begin(), bytes->end()) : "";
}

// The last lines of the output of a program.
std::string LastLines(const std::string& text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  constexpr ptrdiff_t kLines = 12;
  if (std::ssize(lines) > kLines) lines.erase(lines.begin(), lines.end() - kLines);
  return absl::StrJoin(lines, "\n");
}

// Runs `LAUNCHER -n RANKS deeper ARGUMENTS` to its end and returns its standard output. `launcher`: a program
// on the PATH and its arguments. The job gets SIGTERM when this process ends. If the job fails, the message
// has its last lines, and the exit code is that of the job, or kCommunication if deeper has no such code.
// NotFound: there is no such launcher. Unavailable: the process cannot be started.
absl::StatusOr<std::string> RunJob(const std::string& launcher, int ranks,
                                   const std::vector<std::string>& arguments) {
  std::vector<std::string> line = absl::StrSplit(launcher, ' ', absl::SkipEmpty());
  if (line.empty()) return InvalidArgument("--mpirun names no launcher");
  line.insert(line.end(),
              {"-n", absl::StrCat(ranks), std::filesystem::read_symlink("/proc/self/exe").string()});
  line.insert(line.end(), arguments.begin(), arguments.end());
  // The reason is at EXIT_WITHOUT_SYNC of launch/mpirun_line.py.
  setenv("OMPI_MCA_orte_allowed_exit_without_sync", "1", /*overwrite=*/0);

  const int output = memfd_create("output", MFD_CLOEXEC), errors = memfd_create("errors", MFD_CLOEXEC);
  const absl::Cleanup close_both = [&] {
    close(output);
    close(errors);
  };
  const pid_t pid = output < 0 || errors < 0 ? -1 : fork();
  if (pid == 0) {
    std::vector<char*> words;
    for (std::string& word : line) words.push_back(word.data());
    words.push_back(nullptr);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    dup2(output, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    execvp(words[0], words.data());
    _exit(kNotStarted);
  }
  if (pid < 0) return Unavailable("cannot start ", line[0], ": ", std::strerror(errno));
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  if (code == 0) return TextOf(output);
  const std::string text = TextOf(output) + TextOf(errors);
  if (code == kNotStarted && text.empty()) return NotFound("--mpirun: there is no program ", line[0]);
  const bool ours =
      code >= static_cast<int>(ExitCode::kUsage) && code <= static_cast<int>(ExitCode::kNotFinite);
  return WithExitCode(absl::UnknownError(absl::StrCat("exit code ", code, " from: ", absl::StrJoin(line, " "),
                                                      "\n", LastLines(text))),
                      ours ? static_cast<ExitCode>(code) : ExitCode::kCommunication);
}

std::vector<Point> PointsOf(const StudyOptions& options) {
  std::vector<Point> points;
  if (options.kind != "strong") {
    for (const int64_t batch : options.batches)
      for (const int64_t ranks : options.ranks)
        points.push_back({false, static_cast<int>(ranks), batch * ranks});
  }
  if (options.kind != "weak") {
    for (const int64_t ranks : options.ranks)
      points.push_back({true, static_cast<int>(ranks), options.batches[0] * options.ranks.back()});
  }
  return points;
}

// The "step" events of a file of metrics. Sets `first` to the first event of the file.
std::vector<ordered_json> ReadSteps(const std::string& path, ordered_json& first) {
  std::vector<ordered_json> steps;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    ordered_json event = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (first.is_null()) first = event;
    if (event["event"] == "step") steps.push_back(std::move(event));
  }
  return steps;
}

// Means over the steps of `windows`, "step" events of equally many steps. All parts of a step add up to the
// wall clock.
std::map<std::string, double> Summarize(const std::vector<ordered_json>& windows) {
  std::map<std::string, double> run;
  double images = 0;  // of a step; the last one of an epoch may have fewer
  for (const ordered_json& window : windows) {
    const auto add = [&](const char* as, const char* field) {
      const double value = window[field].is_number() ? window[field].get<double>() : 0;
      run[as] += value / static_cast<double>(windows.size());
      return value;
    };
    double within = 0;
    for (const char* part : {"compute_ms", "comm_exposed_ms", "data_wait_ms", "peer_wait_ms"})
      within += add(part, part);
    images += window["images_per_second"].get<double>() * within / 1e3 / static_cast<double>(windows.size());
    add("step_ms", "step_ms");
    add("jitter", "compute_jitter");
    add("spread", "compute_spread");
  }
  run["images_per_second"] = 1e3 * images / run["step_ms"];
  run["other_ms"] = run["step_ms"] - run["compute_ms"] - run["comm_exposed_ms"] - run["data_wait_ms"];
  run["loop_ms"] = run["other_ms"] - run["peer_wait_ms"];
  return run;
}

// The value of the last `--name=value` or `--name value` of the flags of train and of their flag files;
// empty: there is none. train itself reports flag files that cannot be read.
std::string FlagValue(const std::vector<std::string>& flags, absl::string_view name, int depth = 0) {
  constexpr int kDeepest = 8;  // of flag files in flag files
  std::string value;
  for (size_t i = 0; i < flags.size(); ++i) {
    absl::string_view flag = absl::StripAsciiWhitespace(flags[i]);
    if (!absl::ConsumePrefix(&flag, "-")) continue;
    absl::ConsumePrefix(&flag, "-");
    const size_t equals = flag.find('=');
    const absl::string_view given = flag.substr(0, equals);
    if (given != name && given != "flagfile") continue;
    if (equals == flag.npos && i + 1 == flags.size()) continue;
    const std::string text = equals == flag.npos ? flags[++i] : std::string(flag.substr(equals + 1));
    if (given == name) {
      value = text;
    } else if (const auto lines = ReadLines(text); depth < kDeepest && lines.ok()) {
      if (const std::string inner = FlagValue(*lines, name, depth + 1); !inner.empty()) value = inner;
    }
  }
  return value;
}

}  // namespace

ScalingStudy::ScalingStudy(StudyOptions options)
    : options_(std::move(options)), points_(PointsOf(options_)) {}

absl::Status ScalingStudy::Run() {
  RETURN_IF_ERROR(ReadCalibration());
  std::string scratch = (std::filesystem::temp_directory_path() / "deeper-XXXXXX").string();
  if (mkdtemp(scratch.data()) == nullptr) return Unavailable("cannot make a directory for temporary files");
  const absl::Cleanup remove_scratch = [&] {
    std::error_code ignored;
    std::filesystem::remove_all(scratch, ignored);
  };
  for (int round = 0; round < options_.rounds; ++round) {
    for (const Point& point : points_) {
      if (std::ssize(runs_[point.key()]) > round) continue;  // measured as a point of the other kind
      absl::FPrintF(stderr, "round %d of %d: %d ranks, %d images per step\n", round + 1, options_.rounds,
                    point.ranks, point.global_batch);
      RETURN_IF_ERROR(MeasurePoint(point, scratch + "/metrics"));
    }
    RETURN_IF_ERROR(MeasureLink());
  }
  return Calibrate();
}

std::vector<double> ScalingStudy::Figures(const Point& point, const std::string& figure) const {
  std::vector<double> values;
  for (const auto& run : runs_.at(point.key())) values.push_back(run.at(figure));
  return values;
}

double ScalingStudy::MedianOf(const Point& point, const std::string& figure) const {
  return Median(Figures(point, figure));
}

double ScalingStudy::Efficiency(const Point& point) const {
  const Point& base = *std::ranges::find_if(points_, [&](const Point& other) {
    return other.strong == point.strong && (point.strong || other.share() == point.share());
  });
  const auto rate = [&](const Point& of) { return MedianOf(of, "images_per_second") / of.ranks; };
  return rate(point) / rate(base);
}

bool ScalingStudy::HeldOut(const Point& point) const {
  return std::ranges::none_of(CalibrationPoints(),
                              [&](const Point& other) { return other.key() == point.key(); });
}

// The one that sums gradients on the most ranks. Ranks that share nodes may sum within them first, which
// sends less between them. `bench comm` does not know it over NCCL.
std::string ScalingStudy::collective() const {
  const bool tree = gradient_sum_ == "tree" && FlagValue(options_.train_flags, "device") != "cuda";
  return tree ? "all_reduce_tree" : "all_reduce";
}

// Over MPI, links are fitted as if all sums were rings. NCCL uses the best algorithm.
Exchange ScalingStudy::exchange() const {
  Exchange exchange = {.algorithm = over_ == "nccl" ? AllReduceAlgorithm::kBest : AllReduceAlgorithm::kRing};
  if (FlagValue(options_.train_flags, "wire") == "bf16") exchange.wire = 0.5;
  double mib = 0;
  if (absl::SimpleAtod(FlagValue(options_.train_flags, "bucket_mib"), &mib) && mib > 0)
    exchange.bucket_bytes = static_cast<size_t>(mib * (1 << 20));
  return exchange;
}

absl::Status ScalingStudy::ReadCalibration() {
  if (options_.calibration_path.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string text, ReadText(options_.calibration_path));
  earlier_ = ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  bool whole = earlier_.is_object() && earlier_.contains("calibration") && earlier_.contains("settings");
  for (const char* figure : {"fixed_ms", "ms_per_image", "sharing", "sending_ms_per_byte", "jitter"})
    whole = whole && earlier_["calibration"].is_object() &&
            earlier_["calibration"].value(figure, ordered_json()).is_number();
  if (whole && earlier_["settings"].is_object()) return absl::OkStatus();
  return InvalidArgument("--calibration=", options_.calibration_path, ": not the JSON of `bench scaling`");
}

absl::Status ScalingStudy::MeasurePoint(const Point& point, const std::string& metrics) {
  std::vector<std::string> arguments = {"train", "--eval_every=1000000000", "--val_split=none",
                                        "--bucket_mib=8",  // not tuned, because the model must know it
                                        absl::StrCat("--synthetic_samples=", 4 * point.global_batch)};
  arguments.insert(arguments.end(), options_.train_flags.begin(), options_.train_flags.end());
  arguments.insert(arguments.end(), {absl::StrCat("--global_batch=", point.global_batch),
                                     absl::StrCat("--max_steps=", options_.warmup + options_.steps),
                                     absl::StrCat("--log_every=", options_.window()),
                                     absl::StrCat("--metrics_out=", metrics)});
  std::string saved = FlagValue(options_.train_flags, "checkpoint_dir");
  if (!saved.empty()) {  // of its own for each run, which would resume otherwise
    absl::StrAppend(&saved, "/bench-scaling-", getpid());
    arguments.push_back(absl::StrCat("--checkpoint_dir=", saved));
  }
  const absl::Cleanup remove_saved = [&] {
    std::error_code ignored;
    if (!saved.empty()) std::filesystem::remove_all(saved, ignored);
  };
  ASSIGN_OR_RETURN(const std::string output, RunJob(options_.mpirun, point.ranks, arguments));
  ordered_json first;
  std::vector<ordered_json> windows = ReadSteps(metrics, first);
  if (std::ssize(windows) * options_.window() != options_.warmup + options_.steps)
    return Internal("train logged ", windows.size(), " times in ", options_.warmup + options_.steps,
                    " steps");
  windows.erase(windows.begin(), windows.begin() + options_.warmup / options_.window());
  runs_[point.key()].push_back(Summarize(windows));
  network_ = first["config"];
  if (point.ranks == most_ranks()) gradient_sum_ = first["run"]["gradient_sum"].get<std::string>();
  if (!earlier_.empty() && earlier_["settings"]["network"] != network_)
    return InvalidArgument("--calibration=", options_.calibration_path, " is of another network");
  for (absl::string_view line : absl::StrSplit(output, '\n'))
    if (absl::ConsumePrefix(&line, "device ")) device_ = std::string(absl::StripAsciiWhitespace(line));
  return absl::OkStatus();
}

absl::Status ScalingStudy::MeasureLink() {
  if (most_ranks() == 1) return absl::OkStatus();
  std::vector<std::string> arguments = {"bench",
                                        "comm",
                                        absl::StrCat("--collective=", collective()),
                                        "--min_bytes=65536",
                                        "--max_bytes=4194304",
                                        "--warmup=1",
                                        "--repeats=5"};
  for (const char* flag : {"device", "comm"}) {  // as in training
    const std::string value = FlagValue(options_.train_flags, flag);
    if (!value.empty()) arguments.push_back(absl::StrCat("--", flag, "=", value));
  }
  ASSIGN_OR_RETURN(const std::string output, RunJob(options_.mpirun, most_ranks(), arguments));
  const ordered_json report = ordered_json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (report.is_discarded()) return Internal("the output of bench comm is not JSON:\n", LastLines(output));
  over_ = report["settings"]["comm"].get<std::string>();
  ranks_per_node_ = report["settings"]["most_ranks_of_a_machine"].get<int>();
  for (const ordered_json& result : report["results"])
    link_samples_.push_back({result["bytes"].get<double>(), result["ms"].get<double>()});
  return absl::OkStatus();
}

// The points that calibrate computing. Weak scaling: the smallest and the largest batch on the fewest ranks,
// and, if the fewest are one, on the most ranks, to compare them. Only strong scaling: the point with the
// fewest ranks, twice.
std::vector<Point> ScalingStudy::CalibrationPoints() const {
  if (!earlier_.empty()) return {};
  if (points_.front().strong) return {points_.front(), points_.front()};
  const auto [small, large] = std::ranges::minmax(options_.batches);
  std::vector<Point> points;
  for (const int64_t ranks : {options_.ranks.front(), options_.ranks.back()}) {
    if (!points.empty() && (options_.ranks.front() > 1 || ranks == 1)) break;
    for (const int64_t batch : {small, large})
      points.push_back({false, static_cast<int>(ranks), batch * ranks});
  }
  return points;
}

// A GPU waits for gradients without its host, which counts this as computing. What the model says of these
// waits is subtracted, since it adds them again.
ComputeSample ScalingStudy::SampleOf(const Point& point) const {
  const double ms = MedianOf(point, "compute_ms");
  if (over_ != "nccl" || point.ranks == 1 || step_.batch == 0) return {point.share(), ms};
  const Prediction p = Predict(WithBatch(step_, point.share()), cluster_, exchange(), point.ranks);
  return {point.share(), std::max(0.0, ms - p.comm_exposed_ms - p.peer_wait_ms)};
}

// Sets step_: computing of one rank, or of the fewest.
absl::Status ScalingStudy::SetStep(const ComputeLine& alone, double loop_ms) {
  ASSIGN_OR_RETURN(
      const Model model,
      MakeModel(network_["model"].get<std::string>(),
                {.num_classes = network_["num_classes"].get<int64_t>(),
                 .channels = network_["channels"].get<int64_t>(),
                 .image_size = network_["image_size"].get<int64_t>(),
                 .stem = ValueOf<Stem>(network_["stem"].get<std::string>()).value_or(Stem::kDefault),
                 .aux = network_["aux"].get<bool>()}));
  const int64_t batch = points_.front().share();
  ASSIGN_OR_RETURN(step_, StepOf(model, batch, alone.ms_per_image * static_cast<double>(batch)));
  step_.update_ms = alone.fixed_ms;
  step_.loop_ms = loop_ms;
  return absl::OkStatus();
}

// Sets step_ and cluster_.
absl::Status ScalingStudy::Calibrate() {
  cluster_.ranks_per_node = ranks_per_node_;
  if (most_ranks() > 1) cluster_.within = FitLink(link_samples_, most_ranks(), exchange().algorithm);
  cluster_.across = cluster_.within;
  const std::vector<Point> points = CalibrationPoints();
  if (points.empty()) {
    const ordered_json& earlier = earlier_["calibration"];
    const auto figure = [&](const char* name) { return earlier.value(name, 0.0); };
    cluster_.sharing = figure("sharing");
    cluster_.concurrent_ranks = figure("concurrent_ranks");
    cluster_.sending_ms_per_byte = figure("sending_ms_per_byte");
    cluster_.jitter = figure("jitter");
    cluster_.spread = figure("spread");
    cluster_.loader_images_per_second = figure("loader_images_per_second");
    cluster_.control_ms_per_level = figure("control_ms_per_level");
    return SetStep({figure("fixed_ms"), figure("ms_per_image")}, figure("loop_ms"));
  }
  const Point &fewest = points.front(), &most = points.back();
  cluster_.jitter = MedianOf(most, "jitter");
  cluster_.spread = MedianOf(most, "spread");
  const double waited = MedianOf(most, "data_wait_ms");
  const double within = MedianOf(most, "step_ms") - MedianOf(most, "loop_ms");
  constexpr double kMatters = 0.02;  // of a step
  if (waited > kMatters * within)    // the loader is the limit
    cluster_.loader_images_per_second = 1e3 * static_cast<double>(most.share()) / within;
  const double loop_ms = std::max(0.0, MedianOf(fewest, "loop_ms"));
  for (int pass = 0; pass < 2; ++pass)  // the second with the waits that the first predicts
    RETURN_IF_ERROR(SetStep(FitCompute(SampleOf(points[0]), SampleOf(points[1])), loop_ms));
  if (fewest.ranks > 1 || most.ranks == 1) return absl::OkStatus();
  int64_t threads = 0;
  if (!absl::SimpleAtoi(FlagValue(options_.train_flags, "threads"), &threads)) threads = 0;
  if (FlagValue(options_.train_flags, "device") != "cuda")
    cluster_.concurrent_ranks = static_cast<double>(AvailableCores()) / std::max<int64_t>(threads, 1);
  const ComputeLine alone = {step_.update_ms,
                             (step_.forward_ms + step_.backward_ms) / static_cast<double>(step_.batch)};
  FitInterference(SampleOf(points[2]), SampleOf(points[3]), alone, most.ranks,
                  GradientBytes(step_) * exchange().wire, cluster_);
  const double levels = std::ceil(std::log2(most.ranks));
  cluster_.control_ms_per_level = std::max(0.0, MedianOf(most, "loop_ms") - loop_ms) / levels;
  return absl::OkStatus();
}

}  // namespace deeper
