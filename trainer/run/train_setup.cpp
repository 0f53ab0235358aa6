#include "trainer/run/train_setup.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/agree.h"
#include "comm/node_places.h"
#include "data/io/atomic_file.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "trainer/checkpoint/weights_file.h"
#include "trainer/engine/optimizer.h"
#include "trainer/interchange/import_weights.h"
#include "trainer/run/inputs.h"

namespace deeper {
namespace {

constexpr double kShareOfMemory = 0.8;  // of the memory available to a rank, for an automatic micro-batch

// Open MPI gives every rank a terminal, even if the output goes to a file. Ranks draw a bar only on request.
ProgressStyle StyleOf(const RunConfig& config, const Communicator& comm) {
  return config.progress == ProgressStyle::kAuto && comm.name() == "mpi" ? ProgressStyle::kLines
                                                                         : config.progress;
}

// The parameters of the last layer below each head.
std::vector<const Param*> ClassifiersOf(const Model& model, const ParamStore& params) {
  std::vector<const Param*> found;
  for (const Head& head : model.heads) {
    const size_t before = found.size();
    for (int node = head.logits; node != kImages && found.size() == before;
         node = model.nodes[static_cast<size_t>(node)].input) {
      for (const Param& param : params.trained()) {
        if (param.node == node) found.push_back(&param);
      }
    }
  }
  return found;
}

// The bytes of a batch that a device receives; 0 on a CPU.
size_t UploadBytes(const DatasetInfo& data, const LoaderOptions& input) {
  return input.packed ? PackedBatchBytes(data, input) : 0;
}

}  // namespace

int64_t SmallestPass(int64_t batch, int64_t rows, int ranks, bool together) {
  const int64_t largest_share = (batch + ranks - 1) / ranks, passes = (largest_share + rows - 1) / rows;
  int64_t smallest = batch;
  for (int64_t pass = 0; pass < passes; ++pass) {
    int64_t sum = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const int64_t share = RankSlice(batch, batch, 0, rank, ranks).size();
      const int64_t images = share * (pass + 1) / passes - share * pass / passes;
      if (images > 0 && !together) smallest = std::min(smallest, images);
      sum += images;
    }
    if (together) smallest = std::min(smallest, sum);
  }
  return smallest;
}

TrainSetup::TrainSetup(const RunConfig& run_config, Communicator& ranks, Device& its_device, std::FILE* out)
    : config(run_config),
      comm(ranks),
      device(its_device),
      progress(out, run_config.log_every, StyleOf(run_config, ranks)) {}

absl::Status TrainSetup::Prepare() {
  for (const auto prepare : {&TrainSetup::ConnectDevices, &TrainSetup::OpenData, &TrainSetup::BuildNetworks,
                             &TrainSetup::CheckSameModel, &TrainSetup::RestoreOrInitialize,
                             &TrainSetup::BindNetworks, &TrainSetup::PrepareSaving, &TrainSetup::StartLoader,
                             &TrainSetup::OpenReports, &TrainSetup::ClearCheckpointDirectory}) {
    RETURN_IF_ERROR(Agree(comm, (this->*prepare)()));
  }
  Announce();
  return absl::OkStatus();
}

absl::Status TrainSetup::ConnectDevices() {
  gradient_sum = GradientSumOf(config, comm);
  RETURN_IF_ERROR(Agree(comm, CheckSameGpus()));
  ASSIGN_OR_RETURN(connection, MakeDeviceCommunicator(comm, device, config.comm,
                                                      /*tree_sums=*/gradient_sum == GradientSum::kTree));
  if (config.sync_bn) statistics_sum.emplace(device_comm(), device.stream());
  cores = OwnCores(comm);
  return absl::OkStatus();
}

// A slice has the same bits on every rank only if the ranks choose the same algorithms.
absl::Status TrainSetup::CheckSameGpus() {
  if (!IsElastic(config) || device.type() == DeviceType::kCpu) return absl::OkStatus();
  std::string first = device.Describe();
  Broadcast(comm, 0, &first);
  if (first == device.Describe()) return absl::OkStatus();
  return FailedPrecondition("--deterministic=elastic: this rank computes on ", device.Describe(),
                            ", and rank 0 on ", first,
                            ", which rounds differently: use the same GPUs and libraries on all ranks");
}

absl::Status TrainSetup::OpenData() {
  ASSIGN_OR_RETURN(train_data, OpenDataset(config, config.data, config.train_split, comm));
  ASSIGN_OR_RETURN(stats_, PixelStatsFor(config, train_data->info()));
  if (config.pca_noise > 0 && train_data->info().channels != 3)
    return InvalidArgument("--pca_noise=", config.pca_noise, ": needs colour images, and these are grey");
  if (config.val_split == RunConfig::kNoSplit) return PlanSteps();

  const bool val_given = !config.val_data.empty() || config.val_split != RunConfig().val_split;
  absl::StatusOr<std::unique_ptr<Dataset>> val =
      OpenDataset(config, config.val_data.empty() ? config.data : config.val_data, config.val_split, comm);
  if (val.ok()) {
    val_data = *std::move(val);
    if (val_data->info().classes != train_data->info().classes) {
      return WithExitCode(InvalidArgument("the classes of split ", config.val_split, " differ from those of ",
                                          config.train_split),
                          ExitCode::kData);
    }
    const int channels = train_data->info().channels, val_channels = val_data->info().channels;
    if (val_channels != channels && val_channels != 1) {
      return WithExitCode(InvalidArgument("the images of split ", config.val_split, " have ", val_channels,
                                          " channels, and those of ", config.train_split, " have ", channels,
                                          ": pack them from the same format"),
                          ExitCode::kData);
    }
  } else if (val_given || !absl::IsNotFound(val.status())) {
    return val.status();
  }
  return PlanSteps();
}

absl::Status TrainSetup::PlanSteps() {
  epoch_steps_ = BatchesPerEpoch(train_data->info().samples, BatchRows());
  const int64_t by_epochs = config.epochs * epoch_steps_;
  if (by_epochs == 0 && config.max_steps == 0)
    return InvalidArgument("the length of training is not set: pass --epochs or --max_steps");
  total_steps = by_epochs == 0          ? config.max_steps
                : config.max_steps == 0 ? by_epochs
                                        : std::min(by_epochs, config.max_steps);
  const auto steps_of = [&](double epochs) {
    return static_cast<int64_t>(epochs * static_cast<double>(epoch_steps_));
  };
  last_step = total_steps;
  if (config.stop_at > 0)
    last_step =
        std::clamp<int64_t>(std::llround(config.stop_at * static_cast<double>(epoch_steps_)), 1, total_steps);
  if (!config.trace.empty() && config.trace_first > last_step) {
    return InvalidArgument("--trace_first=", config.trace_first, ": the run ends at step ", last_step,
                           ", so --trace would write nothing");
  }
  schedule = {.kind = config.lr_schedule,
              .base_lr = config.lr,
              .warmup_steps = steps_of(config.warmup_epochs),
              .total_steps = total_steps,
              .gamma = config.lr_gamma,
              .step_size = std::max<int64_t>(1, steps_of(config.lr_step_epochs)),
              .power = config.lr_power,
              .min_lr = config.lr_min};
  return ValidateSchedule(schedule);
}

absl::StatusOr<TrainSetup::Networks> TrainSetup::NetworksOf(int64_t rows) {
  Networks made;
  ASSIGN_OR_RETURN(const Model model, ModelFor(config, train_data->info(), /*training=*/true));
  NetworkOptions options = {.rows = rows,
                            .precision = config.precision,
                            .training = true,
                            .fusion = FusionOf(config),
                            .label_smoothing = static_cast<float>(config.label_smoothing),
                            .sum_statistics = config.sync_bn ? statistics_sum->Function() : nullptr};
  ASSIGN_OR_RETURN(made.train, Network::Prepare(model, options, device));
  LoaderOptions input;
  made.train->Configure(input);
  ConfigureTrainingInput(config, input);
  made.bytes = made.train->arena_bytes() + UploadBytes(train_data->info(), input);
  if (val_data == nullptr) return made;
  ASSIGN_OR_RETURN(const Model eval, ModelFor(config, train_data->info(), /*training=*/false));
  options = {.rows = rows, .precision = config.precision, .training = false, .fusion = FusionOf(config)};
  ASSIGN_OR_RETURN(made.eval, Network::Prepare(eval, options, device));
  ConfigureEvaluationInput(config, input);
  made.bytes += made.eval->arena_bytes() + UploadBytes(val_data->info(), input);
  return made;
}

// The whole share of the global batch in one forward pass; halves the rows until it fits in memory and, on a
// GPU, in tensors of less than 2^31 elements.
absl::StatusOr<TrainSetup::Networks> TrainSetup::FittingNetworks() {
  const bool cuda = device.type() == DeviceType::kCuda;
  const int sharing = cuda ? connection.ranks_on_device : comm.local_size();  // ranks share the memory
  const double available = kShareOfMemory * static_cast<double>(device.AvailableBytes()) / sharing;
  const bool fixed = config.micro_batch > 0 || IsElastic(config);
  int64_t rows = config.micro_batch > 0 ? std::min(config.micro_batch, ShareRows()) : ShareRows();
  if (IsElastic(config)) rows = (BatchRows() + config.elastic_slices - 1) / config.elastic_slices;
  ASSIGN_OR_RETURN(const Model model, ModelFor(config, train_data->info(), /*training=*/true));
  const auto halve = [&] { rows = (rows + 1) / 2; };
  const auto cannot_fit = [&] {  // whatever the plans are, so that nothing is tuned for these rows
    return static_cast<double>(Network::LeastArenaBytes(model, rows, config.precision)) > available;
  };
  while (!fixed && rows > 1 && cannot_fit()) halve();
  while (true) {
    absl::StatusOr<Networks> made = NetworksOf(rows);
    const bool fits =
        made.ok() ? static_cast<double>(made->bytes) <= available : !absl::IsResourceExhausted(made.status());
    if (fits || rows == 1 || fixed) return made;
    halve();
  }
}

// All ranks need the same micro-batch, or they would make different collectives. It is that of the rank with
// the least memory.
absl::Status TrainSetup::PrepareNetworks() {
  ASSIGN_OR_RETURN(Networks networks, Agree(comm, FittingNetworks()));
  int64_t rows = networks.train->options().rows;
  comm.AllReduce(&rows, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  absl::StatusOr<Networks> common = std::move(networks);
  if (rows < common->train->options().rows) {
    *common = {};
    common = NetworksOf(rows);
  }
  ASSIGN_OR_RETURN(networks, Agree(comm, std::move(common)));
  net = std::move(networks.train);
  eval_net = std::move(networks.eval);
  return absl::OkStatus();
}

absl::Status TrainSetup::BuildNetworks() {
  RETURN_IF_ERROR(PrepareNetworks());
  ASSIGN_OR_RETURN(params, ParamStore::Create(
                               net->Params(), device, /*training=*/true, net->wants_narrow_params(),
                               {OptimizerState(config.optimizer),
                                config.shard_optimizer ? ArenaSlice{comm.rank(), comm.size()} : ArenaSlice{},
                                config.ema_decay > 0}));
  ASSIGN_OR_RETURN(const std::vector<LrScale> scales, LrScalesOf(config));
  ASSIGN_OR_RETURN(lr_scales, LrScalesOf(scales, *params));
  RETURN_IF_ERROR(ValidateFor(config, comm.size(), params->statistics_elements() > 0));
  return CheckBatchNorm();
}

absl::Status TrainSetup::CheckBatchNorm() const {
  if (params->statistics_elements() == 0) return absl::OkStatus();
  const int64_t samples = train_data->info().samples, last = samples - (epoch_steps_ - 1) * BatchRows();
  const auto fits = [&](int64_t batch) {
    return SmallestPass(batch, net->options().rows, comm.size(), config.sync_bn) > 1;
  };
  const bool first_fits = fits(BatchRows());
  if (first_fits && (total_steps < epoch_steps_ || fits(last))) return absl::OkStatus();
  const bool several = comm.size() > 1;
  return InvalidArgument("--global_batch=", config.global_batch, ": ",
                         first_fits ? "the last batch of an epoch" : "a batch", " has ",
                         first_fits ? last : BatchRows(), " of the ", samples,
                         " samples, which leaves batch normalisation a single image in a forward pass",
                         several ? " of a rank" : "", "; use another --global_batch",
                         config.micro_batch > 0 ? ", a larger --micro_batch" : "",
                         several ? ", fewer ranks" : "", several && !config.sync_bn ? ", or --sync_bn" : "");
}

// Gradients are summed arena by arena, so all ranks need the same layout.
absl::Status TrainSetup::CheckSameModel() {
  uint64_t hash = RandomStream(train_data->info().uuid) + static_cast<uint64_t>(params->state_elements()) +
                  static_cast<uint64_t>(net->options().rows << 40);
  for (const Param& param : params->trained()) {
    hash = hash * 1099511628211u +
           (RandomStream(param.name) ^ static_cast<uint64_t>(param.offset * 64 + param.layout.block));
  }
  int64_t low = static_cast<int64_t>(hash), high = low;
  comm.AllReduce(&low, 1, CommType::kI64, ReduceOp::kMin, {}).Wait();
  comm.AllReduce(&high, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();
  if (low == high) return absl::OkStatus();
  return FailedPrecondition(
      "ranks differ in the dataset, in the micro-batch or in the layout of parameters: use the same files, "
      "flags and build on "
      "all ranks, and processors with the same vector instructions (or set ONEDNN_MAX_CPU_ISA to the "
      "smallest set that all of them have)");
}

absl::Status TrainSetup::RestoreOrInitialize() {
  data_state = {.dataset_uuid = train_data->info().uuid,
                .seed = config.seed,
                .global_batch = config.global_batch,
                .order = NameOf(config.order)};
  model_config = NetworkJson(config, net->model(), train_data->info(), stats_);
  if (IsElastic(config) && device.type() == DeviceType::kCuda)
    model_config["elastic"] = {{"slices", config.elastic_slices}, {"gpu", device.Describe()}};
  ASSIGN_OR_RETURN(const bool resumed, WithExitCode(Resume(), ExitCode::kCheckpoint));
  if (resumed) return absl::OkStatus();
  params->Initialize(config.seed);
  if (!config.init_from.empty()) {
    RETURN_IF_ERROR(WithExitCode(LoadInitialWeights(), ExitCode::kCheckpoint));
  }
  if (params->averages() != nullptr) params->StartAverages();
  return absl::OkStatus();
}

absl::Status TrainSetup::LoadInitialWeights() {
  const absl::StatusOr<Weights> weights =
      comm.rank() == 0 ? ImportWeights(config.init_from, AverageOf(config)) : Weights();
  RETURN_IF_ERROR(Agree(comm, weights.status()));
  const nlohmann::json classes = weights->config.value("classes", nlohmann::json());
  int64_t has_others = classes.size() == model_config["classes"].size() && classes != model_config["classes"];
  comm.AllReduce(&has_others, 1, CommType::kI64, ReduceOp::kMax, {}).Wait();  // rank 0 has read the file
  const std::vector<const Param*> classifiers = ClassifiersOf(net->model(), *params);
  std::vector<std::vector<float>> initial;
  for (const Param* param : classifiers) {
    initial.emplace_back(static_cast<size_t>(param->spec.elements()));
    params->Read(*param, params->values(), initial.back().data());
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> warnings,
                   LoadWeights(*weights, *params, comm, net->model().num_classes));
  decisions_.insert(decisions_.end(), warnings.begin(), warnings.end());
  if (has_others != 0) {
    for (size_t i = 0; i < classifiers.size(); ++i)
      params->Write(*classifiers[i], initial[i].data(), params->values());
    const auto name = [](std::string* out, const Param* param) { out->append(param->name); };
    decisions_.push_back(absl::StrCat(
        config.init_from, " has other classes than the data, or another order of them: the classifiers ",
        "start anew: ", absl::StrJoin(classifiers, ", ", name)));
  }
  decisions_.push_back(absl::StrCat("initial weights from ", config.init_from));
  for (const char* name : {"mean", "std", "stem", "blur_pool", "val_preset"}) {
    if (!weights->config.contains(name)) continue;
    const nlohmann::json &before = weights->config[name],
                         now = model_config.value(name, nlohmann::json("none"));
    if (before == now) continue;
    decisions_.push_back(absl::StrCat("its ", name, " was ", before.dump(), ", that of this run is ",
                                      now.dump(), "; --", name, " sets it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> TrainSetup::Resume() {
  if (config.checkpoint_dir.empty()) {
    decisions_.push_back("none; without --checkpoint_dir, no checkpoints are saved");
    return false;
  }
  absl::StatusOr<DirectoryLock> lock = DirectoryLock();
  if (comm.rank() == 0) lock = OpenCheckpointDirectory(config.checkpoint_dir);
  ASSIGN_OR_RETURN(directory_lock, Agree(comm, std::move(lock)));
  ASSIGN_OR_RETURN(CheckpointChoice choice, ChooseCheckpoint(config.checkpoint_dir, config.resume, comm));
  decisions_ = choice.warnings;
  if (!directory_lock.note().empty())
    decisions_.push_back(absl::StrCat(config.checkpoint_dir, " was ", directory_lock.note()));
  if (choice.path.empty()) {
    decisions_.push_back(config.resume == "never"
                             ? "none, because of --resume=never"
                             : absl::StrCat("none: no checkpoint in ", config.checkpoint_dir));
    return false;
  }
  const Match match = config.force_resume     ? Match::kForced
                      : config.image_size > 0 ? Match::kResized
                                              : Match::kExact;
  ASSIGN_OR_RETURN(LoadedState state,
                   LoadCheckpoint(choice.path, {0, data_state, model_config, {}}, match, *params, comm));
  for (const std::string& forced : state.warnings)
    decisions_.push_back(absl::StrCat("--force_resume ignores that ", forced));
  const nlohmann::json &before = state.config["image_size"], &now = model_config["image_size"];
  if (before != now && match == Match::kResized)
    decisions_.push_back(absl::StrCat("the image size was ", before.dump(), " and is now ", now.dump()));
  step = state.step;
  data_state = state.data;
  if (!config.init_from.empty())
    decisions_.push_back("--init_from is not used: the checkpoint has the weights");
  decisions_.push_back(absl::StrCat(choice.path, ": ", step, " steps done, next is batch ", data_state.batch,
                                    " of epoch ", data_state.epoch));
  return true;
}

// From here on, the parameters' memory must not move.
absl::Status TrainSetup::BindNetworks() {
  device_comm().Register(params->grads(), static_cast<size_t>(params->trained_elements()) * sizeof(float));
  RETURN_IF_ERROR(net->Bind(*params));
  RETURN_IF_ERROR(net->ReserveUploads(UploadBytes(train_data->info(), TrainingInput())));
  return eval_net == nullptr ? absl::OkStatus() : eval_net->Bind(*params);
}

absl::Status TrainSetup::PrepareSaving() {
  if (config.checkpoint_dir.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(saver, CheckpointSaver::Create(config.checkpoint_dir, {config.keep, config.keep_every},
                                                  *params, comm, device, &directory_lock, &device_comm()));
  return absl::OkStatus();
}

absl::Status TrainSetup::OpenReports() {
  if (comm.rank() != 0) return absl::OkStatus();
  if (!config.tensorboard.empty()) {
    RETURN_IF_ERROR(metrics.AddTensorBoard(config.tensorboard, step + 1));
  }
  if (!config.metrics_out.empty()) {
    RETURN_IF_ERROR(metrics.AddFile(config.metrics_out,
                                    step > 0 ? MetricsWriter::Mode::kAppend : MetricsWriter::Mode::kRestart));
  }
  if (!config.trace.empty()) {
    RETURN_IF_ERROR(CreateParentDirectory(config.trace));
    RETURN_IF_ERROR(CheckWritable(config.trace));
  }
  if (!metrics.moved_to().empty()) {
    progress.Print(absl::StrCat("metrics of an earlier run: moved from ", config.metrics_out, " to ",
                                metrics.moved_to()));
  }
  if (step == 0) return metrics.Write({"start", {{"config", model_config}, {"run", RunJson()}}});
  return metrics.Write(
      {"resume",
       {{"step", step}, {"path", config.checkpoint_dir}, {"config", model_config}, {"run", RunJson()}}});
}

absl::Status TrainSetup::StartLoader() {
  ASSIGN_OR_RETURN(loader, MakeLoader(*train_data, TrainingInput()));
  return absl::OkStatus();
}

absl::Status TrainSetup::ClearCheckpointDirectory() {
  if (comm.rank() != 0 || config.checkpoint_dir.empty()) return absl::OkStatus();
  return WithExitCode(RemoveInterruptedSaves(config.checkpoint_dir), ExitCode::kCheckpoint);
}

LoaderOptions TrainSetup::TrainingInput() const {
  LoaderOptions options = Preset();
  ConfigureTrainingInput(config, options);
  options.allow_bad = config.allow_bad;
  options.order = config.order;
  options.seed = config.seed;
  options.global_batch = BatchRows();
  options.rank = comm.rank();
  options.world = comm.size();
  options.slices = IsElastic(config) ? config.elastic_slices : 0;
  options.first_epoch = data_state.epoch;
  options.first_batch = data_state.batch;
  return options;
}

LoaderOptions TrainSetup::Preset() const {
  LoaderOptions options;
  net->Configure(options);
  options.stats = stats_;
  ConfigureEvaluationInput(config, options);
  options.max_workers = cores;
  return options;
}

}  // namespace deeper
