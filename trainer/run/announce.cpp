// Describes a run before step 0: on the terminal, and in the metrics for reports.
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "trainer/run/inputs.h"
#include "trainer/run/train_setup.h"

namespace deeper {
namespace {

// The variables of rank 0 that steer the libraries of communication: "NCCL_DEBUG=INFO UCX_TLS=tcp". Without
// those that mpirun and MakeMpiCommunicator set themselves.
std::string CommunicationSettings() {
  constexpr const char* kPrefixes[] = {"NCCL_",         "UCX_",         "OMPI_MCA_btl", "OMPI_MCA_coll",
                                       "OMPI_MCA_mpi_", "OMPI_MCA_mtl", "OMPI_MCA_pml"};
  constexpr const char* kNotFromUsers[] = {"OMPI_MCA_coll_libnbc_iallreduce_algorithm=1",
                                           "OMPI_MCA_mpi_oversubscribe="};
  std::vector<std::string> settings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const auto begins_with = [&](const char* prefix) { return absl::StartsWith(*entry, prefix); };
    if (std::ranges::any_of(kPrefixes, begins_with) && std::ranges::none_of(kNotFromUsers, begins_with))
      settings.emplace_back(*entry);
  }
  std::ranges::sort(settings);
  return absl::StrJoin(settings, " ");
}

// The augmentations that are on, by the names of their flags: "inception, color_jitter 0.5, mixup 0.2".
std::string DescribeAugmentation(const RunConfig& config) {
  LoaderOptions options;
  ConfigureTrainingInput(config, options);
  std::string text = NameOf(config.augment);
  if (config.flip == Flip::kAlternate) text += ", alternating flips";
  if (config.trivial_augment) text += ", trivial_augment";
  for (const auto& [flag, value] : {std::pair{"color_jitter", options.color_jitter},
                                    {"pca_noise", options.pca_noise},
                                    {"random_erasing", options.random_erasing},
                                    {"mixup", options.mixup},
                                    {"cutmix", options.cutmix},
                                    {"label_smoothing", config.label_smoothing}}) {
    if (value > 0) absl::StrAppend(&text, ", ", flag, " ", value);
  }
  return text;
}

// The flags whose values are not their defaults: "--lr=0.05 --augment=crop".
std::string FlagsThatDiffer(RunConfig config) {
  RunConfig defaults;
  const std::vector<FlagGroup> given = ConfigFlags(config), by_default = ConfigFlags(defaults);
  std::vector<std::string> differ;
  for (size_t i = 0; i < given.size(); ++i) {
    for (size_t j = 0; j < given[i].flags.size(); ++j) {
      const std::string value = given[i].flags[j].ValueText();
      if (value != by_default[i].flags[j].ValueText())
        differ.push_back(absl::StrCat("--", given[i].flags[j].name, "=", value));
    }
  }
  return absl::StrJoin(differ, " ");
}

}  // namespace

void TrainSetup::Announce() {
  const Model& model = net->model();
  const DatasetInfo& data = train_data->info();
  const auto row = [&](const char* label, const std::string& text) { progress.PrintRow(label, text); };
  row("model", absl::StrFormat("%s, images of %d x %d x %d, %d classes, %d parameters, %d head%s", model.name,
                               model.channels, model.image_size, model.image_size, model.num_classes,
                               TrainedParameters(), model.heads.size(), model.heads.size() == 1 ? "" : "s"));
  const TensorDesc map = device.FeatureMap({}, config.precision);
  row("device",
      absl::StrFormat("%s, %s, feature maps %s", device.Describe(), NameOf(config.precision),
                      map.block > 1 ? absl::StrCat("in blocks of ", map.block, " channels") : "in NHWC"));
  row("memory", absl::StrFormat("%d MiB of activations per rank", net->arena_bytes() >> 20));
  const std::string over =
      comm.library().empty() ? "" : absl::StrCat(" over ", comm.name(), " (", comm.library(), ")");
  row("ranks", absl::StrCat(comm.size(), over));
  if (const std::string settings = CommunicationSettings(); comm.size() > 1 && !settings.empty())
    row("settings", settings);
  if (connection.comm != nullptr) row("gradients", absl::StrCat("over ", connection.description));
  row("batch", absl::StrFormat("%d images per step; %d per rank, in forward passes of %d", BatchRows(),
                               ShareRows(), net->options().rows));
  if (BatchRows() < config.global_batch) {
    progress.Print(absl::StrFormat("warning: --global_batch=%d, but split %s has %d samples: a step has %d",
                                   config.global_batch, data.split, data.samples, BatchRows()));
  }
  if (BatchRows() < comm.size()) {
    progress.Print(absl::StrFormat("warning: a step has %d images on %d ranks: %d ranks have none",
                                   BatchRows(), comm.size(), comm.size() - BatchRows()));
  }
  if (config.deterministic == Determinism::kTrue && config.micro_batch == 0 &&
      net->options().rows < ShareRows()) {
    progress.Print(absl::StrFormat(
        "warning: forward passes are of %d images, because larger ones do not fit; with other free memory "
        "the weights differ: give --micro_batch=%d to all runs that must be equal",
        net->options().rows, net->options().rows));
  }
  if (gradient_sum == GradientSum::kTree && !IsElastic(config))
    row("gradients", "summed within nodes first, then between nodes");
  if (params->statistics_elements() > 0) {
    row("batch norm",
        config.sync_bn
            ? "statistics over the forward passes of all ranks"
            : absl::StrFormat("statistics over a forward pass of each rank: %d images", net->options().rows));
  }
  const auto mib = [](int64_t elements) { return static_cast<double>(elements) * sizeof(float) / (1 << 20); };
  row("optimizer",
      absl::StrFormat("%s, %.1f MiB of %s per rank%s", config.optimizer,
                      mib(params->state_elements() * std::ssize(params->state_names())),
                      absl::StrJoin(params->state_names(), " and "),
                      params->state_is_sharded()
                          ? absl::StrFormat(", a slice of %.1f MiB", mib(params->trained_elements()))
                          : ""));
  if (config.ema_decay > 0)
    row("averages", absl::StrFormat("of weights, with decay %g; evaluations use them", config.ema_decay));
  row("learning rate",
      absl::StrFormat("%g for the global batch on any number of ranks; %s; warm-up of %d steps", config.lr,
                      NameOf(config.lr_schedule), schedule.warmup_steps));
  row("data", absl::StrFormat("%d samples of split %s of %s, order %s", data.samples, data.split,
                              config.synthetic ? "generated images" : config.data, NameOf(config.order)));
  row("augmentation", DescribeAugmentation(config));
  const std::string preset =
      config.val_preset == Augment::kNone ? "" : absl::StrCat(", val_preset ", NameOf(config.val_preset));
  row("evaluation", val_data ? absl::StrFormat("%d samples of split %s%s", val_data->info().samples,
                                               val_data->info().split, preset)
                    : config.val_split == RunConfig::kNoSplit
                        ? "none: --val_split=none"
                        : absl::StrFormat("none: there is no split %s", config.val_split));
  row("length",
      absl::StrFormat("%d steps, %d per epoch%s", total_steps, epoch_steps_,
                      last_step < total_steps ? absl::StrCat("; stops after step ", last_step) : ""));
  for (const std::string& decision : decisions_) row("resume", decision);
  row("flags", FlagsThatDiffer(config));
}

// For reports.
nlohmann::ordered_json TrainSetup::RunJson() const {
  constexpr const char* kSums[] = {"any_order", "tree", "bf16"};  // in the order of GradientSum
  const DatasetInfo& data = train_data->info();
  return {{"ranks", comm.size()},
          {"device", device.Describe()},
          {"precision", NameOf(config.precision)},
          {"data", config.synthetic ? "made up" : config.data},
          {"samples", data.samples},
          {"eval_samples", val_data == nullptr ? 0 : val_data->info().samples},
          {"global_batch", BatchRows()},
          {"total_steps", total_steps},
          {"epoch_steps", epoch_steps_},
          {"parameters", TrainedParameters()},
          {"gradient_sum", kSums[static_cast<size_t>(gradient_sum)]},
          {"optimizer", config.optimizer},
          {"lr", config.lr},
          {"lr_schedule", NameOf(config.lr_schedule)},
          {"seed", config.seed},
          {"flags", FlagsThatDiffer(config)}};
}

int64_t TrainSetup::TrainedParameters() const {
  int64_t trained = 0;
  for (const Param& param : params->trained()) trained += param.spec.elements();
  return trained;
}

}  // namespace deeper
