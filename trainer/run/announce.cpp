// What a run says of itself before step 0: on the terminal, and to reports.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "trainer/run/inputs.h"
#include "trainer/run/train_setup.h"

namespace deeper {
namespace {

// What is on, by the names of the flags: "inception, color_jitter 0.5, mixup 0.2".
std::string DescribeAugmentation(const RunConfig& config) {
  LoaderOptions options;
  ConfigureTrainingInput(config, options);
  std::string text = NameOf(config.augment);
  for (const auto& [flag, value] : {std::pair{"color_jitter", options.color_jitter},
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
  const auto line = [&](const char* what, const std::string& text) {
    progress.Print(absl::StrFormat("%-13s %s", what, text));
  };
  line("model", absl::StrFormat("%s, %d parameters, %d heads, %d x %d x %d images, %d classes", model.name,
                                TrainedParameters(), model.heads.size(), model.channels, model.image_size,
                                model.image_size, model.num_classes));
  line("device", absl::StrFormat("%s, %s, %d MiB of activations a rank", device.Describe(),
                                 NameOf(config.precision), net->arena_bytes() >> 20));
  line("ranks", absl::StrFormat("%d over %s", comm.size(), comm.name()));
  if (connection.comm != nullptr) line("gradients", absl::StrCat("over ", connection.description));
  line("batch", absl::StrFormat("%d global, %d a rank in forward passes of %d", BatchRows(), ShareRows(),
                                net->options().rows));
  if (BatchRows() < config.global_batch) {
    progress.Print(absl::StrFormat("warning: --global_batch=%d, but split %s has %d samples: a step has %d",
                                   config.global_batch, data.split, data.samples, BatchRows()));
  }
  if (BatchRows() < comm.size()) {
    progress.Print(
        absl::StrFormat("warning: --global_batch=%d on %d ranks: in a step %d of them have no image",
                        BatchRows(), comm.size(), comm.size() - BatchRows()));
  }
  if (gradient_sum == GradientSum::kTree && !IsElastic(config))
    line("gradients", "added up within nodes first, then between them");
  if (config.sync_bn) line("batch norm", "over the rows of all ranks' forward passes");
  const auto mib = [](int64_t elements) { return static_cast<double>(elements) * sizeof(float) / (1 << 20); };
  line("optimizer",
       absl::StrFormat("%s, %.1f MiB of %s a rank%s", config.optimizer,
                       mib(params->state_elements() * std::ssize(params->state_names())),
                       absl::StrJoin(params->state_names(), " and "),
                       params->state_is_sharded()
                           ? absl::StrFormat(", its slice of %.1f MiB", mib(params->trained_elements()))
                           : ""));
  line("learning rate",
       absl::StrFormat("%g for the global batch, whatever the number of ranks; %s, warm-up %d steps",
                       config.lr, NameOf(config.lr_schedule), schedule.warmup_steps));
  line("data", absl::StrFormat("%d samples of split %s, %s, order %s, augmentation %s", data.samples,
                               data.split, config.synthetic ? "made up" : config.data, NameOf(config.order),
                               DescribeAugmentation(config)));
  const std::string preset =
      config.val_preset == Augment::kNone ? "" : absl::StrCat(", val_preset ", NameOf(config.val_preset));
  line("evaluation", val_data ? absl::StrFormat("%d samples of split %s%s", val_data->info().samples,
                                                val_data->info().split, preset)
                              : absl::StrFormat("none: there is no split %s", config.val_split));
  line("length", absl::StrFormat("%d steps, %d an epoch", total_steps, epoch_steps_));
  for (const std::string& decision : decisions_) line("resume", decision);
  line("flags", FlagsThatDiffer(config));
}

// For reports: on what, and how, this run trains.
nlohmann::ordered_json TrainSetup::RunJson() const {
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
          {"optimizer", config.optimizer},
          {"lr", config.lr},
          {"lr_schedule", NameOf(config.lr_schedule)},
          {"seed", config.seed}};
}

int64_t TrainSetup::TrainedParameters() const {
  int64_t trained = 0;
  for (const Param& param : params->trained()) trained += param.spec.elements();
  return trained;
}

}  // namespace deeper
