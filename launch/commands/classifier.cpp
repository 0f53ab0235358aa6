#include "launch/commands/classifier.h"

#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/agree.h"
#include "comm/node_places.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/run_flags.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/checkpoint_directory.h"
#include "trainer/checkpoint/weights_file.h"

namespace deeper {
namespace {

using nlohmann::json;

void Warn(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) std::fprintf(stderr, "deeper: warning: %s\n", warning.c_str());
}

// {"path", "step", "config"} of what `path` means: itself, or the newest valid checkpoint in it.
absl::StatusOr<json> FindWeights(const std::string& path) {
  if (!std::filesystem::is_directory(path)) {
    ASSIGN_OR_RETURN(const Weights weights, ReadWeights(path));
    return json{{"path", path}, {"step", 0}, {"config", weights.config}};
  }
  ASSIGN_OR_RETURN(const CheckpointChoice choice, FindCheckpoint(path));
  Warn(choice.warnings);
  ASSIGN_OR_RETURN(const CheckpointManifest manifest, ReadCheckpointManifest(choice.path));
  return json{{"path", choice.path}, {"step", manifest.step}, {"config", manifest.config}};
}

// Rank 0 looks, and tells the others.
absl::StatusOr<json> FindWeightsForAll(const std::string& path, Communicator& comm) {
  absl::StatusOr<json> found = json();
  if (comm.rank() == 0) found = FindWeights(path);
  RETURN_IF_ERROR(Agree(comm, found.status()));
  std::string text = found->dump();
  Broadcast(comm, 0, &text);
  return json::parse(text);
}

// Takes from a training's config what the flags left open. Also what the network knows of the data it was
// trained on.
absl::StatusOr<DatasetInfo> Complete(const json& trained, RunConfig& config) {
  try {
    if (config.model.empty()) config.model = trained.at("model").get<std::string>();
    if (config.stem.empty()) config.stem = trained.at("stem").get<std::string>();
    if (config.val_preset.empty()) config.val_preset = trained.value("val_preset", "none");
    if (config.num_classes == 0) config.num_classes = trained.at("num_classes").get<int64_t>();
    if (config.image_size == 0) config.image_size = trained.at("image_size").get<int64_t>();
    DatasetInfo data;
    data.channels = trained.at("channels").get<int>();
    data.classes = trained.at("classes").get<std::vector<std::string>>();
    data.stats = {trained.at("mean").get<std::vector<float>>(), trained.at("std").get<std::vector<float>>()};
    return data;
  } catch (const json::exception& error) {
    return absl::FailedPreconditionError(
        absl::StrCat("its config does not describe a network: ", error.what()));
  }
}

absl::Status Prepare(const Model& model, int64_t rows, Device& device, Classifier& classifier) {
  const NetworkOptions options = {rows, PrecisionOf(classifier.config), /*training=*/false,
                                  FusionOf(classifier.config)};
  ASSIGN_OR_RETURN(std::unique_ptr<Network> net, Network::Prepare(model, options, device));
  ASSIGN_OR_RETURN(std::unique_ptr<ParamStore> params,
                   ParamStore::Create(net->Params(), device, /*training=*/false, net->wants_narrow_params()));
  classifier.params = std::move(params);
  classifier.net = std::move(net);
  return classifier.net->Bind(*classifier.params);
}

absl::Status FillIn(const json& weights, int64_t rows, int cores, Device& device, Classifier& classifier) {
  RunConfig& config = classifier.config;
  absl::StatusOr<DatasetInfo> trained_on = Complete(weights.at("config"), config);
  if (!trained_on.ok()) {
    return WithExitCode(
        absl::FailedPreconditionError(absl::StrCat(classifier.weights, ": ", trained_on.status().message())),
        ExitCode::kCheckpoint);
  }
  RETURN_IF_ERROR(Validate(config));
  ASSIGN_OR_RETURN(const Model model, ModelFor(config, *trained_on, /*training=*/false));
  ASSIGN_OR_RETURN(PixelStats stats, PixelStatsFor(config, *trained_on));
  classifier.classes = std::move(trained_on->classes);
  classifier.input.channels = static_cast<int>(model.channels);
  classifier.input.stats = std::move(stats);
  ConfigureEvaluationInput(config, classifier.input);
  classifier.input.max_workers = cores;
  return Prepare(model, rows, device, classifier);
}

}  // namespace

ClassifierFlags::ClassifierFlags() {
  config.model.clear();
  config.stem.clear();
  config.val_preset.clear();
}

std::vector<FlagGroup> ClassifierFlags::Groups() {
  return {{"Weights",
           {{"checkpoint", &checkpoint,
             "step directory, or a directory of them, whose newest valid one is taken"},
            {"init_from", &config.init_from, "in its place: a weights file of `export`"}}},
          ModelFlags(config),
          InputFlags(config),
          With(MachineFlags(config), {{"batch", &batch, "images of a rank's forward pass"}})};
}

absl::StatusOr<Classifier> OpenClassifier(const ClassifierFlags& flags, Device& device, Communicator& comm) {
  if (flags.checkpoint.empty() == flags.config.init_from.empty())
    return absl::InvalidArgumentError("give either --checkpoint=DIR or --init_from=FILE");
  if (flags.batch < 1)
    return absl::InvalidArgumentError(absl::StrCat("--batch=", flags.batch, ": must be at least 1"));
  const std::string& path = flags.checkpoint.empty() ? flags.config.init_from : flags.checkpoint;
  ASSIGN_OR_RETURN(const json weights, WithExitCode(FindWeightsForAll(path, comm), ExitCode::kCheckpoint));

  Classifier classifier;
  classifier.weights = weights.at("path").get<std::string>();
  classifier.step = weights.at("step").get<int64_t>();
  classifier.config = flags.config;
  const int cores = OwnCores(comm);
  RETURN_IF_ERROR(Agree(comm, FillIn(weights, flags.batch, cores, device, classifier)));
  ASSIGN_OR_RETURN(
      const std::vector<std::string> warnings,
      WithExitCode(LoadWeights(classifier.weights, *classifier.params, comm), ExitCode::kCheckpoint));
  Warn(warnings);
  return classifier;
}

}  // namespace deeper
