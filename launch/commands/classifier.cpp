#include "launch/commands/classifier.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "comm/agree.h"
#include "comm/node_places.h"
#include "kernels/base/exit_code.h"
#include "kernels/base/status.h"
#include "launch/cli/run_config.h"
#include "nlohmann/json.hpp"
#include "trainer/checkpoint/weights_file.h"
#include "trainer/interchange/import_weights.h"
#include "trainer/run/inputs.h"

namespace deeper {
namespace {

using nlohmann::json;

// Rows of a forward pass for most images per second (docs/benchmarks.md#inference): on a CPU, feature maps
// stay in its caches if they are of 16 images of 224 pixels, or of as many pixels in all. 256 on a GPU is not
// measured.
int64_t FastestRows(const Device& device, int64_t image_size) {
  if (device.type() != DeviceType::kCpu) return 256;
  return std::clamp<int64_t>(16 * 224 * 224 / (image_size * image_size), 8, 256);
}

absl::Status FillIn(const json& network, int64_t batch, int64_t images, int cores, Classifier& classifier) {
  RunConfig& config = classifier.config;
  absl::StatusOr<DatasetInfo> trained_on = ReadNetworkJson(network, config);
  if (!trained_on.ok()) {
    return WithExitCode(FailedPrecondition(classifier.weights, ": ", trained_on.status().message()),
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
  const int64_t rows = std::min(batch > 0 ? batch : FastestRows(*classifier.device, model.image_size),
                                std::max<int64_t>(images, 1));
  const NetworkOptions options = {rows, config.precision, /*training=*/false, FusionOf(config)};
  ASSIGN_OR_RETURN(classifier.net, Network::Prepare(model, options, *classifier.device));
  ASSIGN_OR_RETURN(classifier.params,
                   ParamStore::Create(classifier.net->Params(), *classifier.device, /*training=*/false,
                                      classifier.net->wants_narrow_params()));
  return classifier.net->Bind(*classifier.params);
}

}  // namespace

void Warn(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) std::fprintf(stderr, "deeper: warning: %s\n", warning.c_str());
}

std::vector<FlagGroup> ClassifierFlags::Groups() {
  FlagGroup network = ModelFlags(config), input = PixelFlags(config);
  network.title = "Network (empty or 0: as in the checkpoint)";
  input.title = "Input (empty: as in the checkpoint)";
  return {With({"Weights",
                {CheckpointFlag(checkpoint),
                 {"init_from", &config.init_from,
                  "weights file, in place of a checkpoint: HDF5, safetensors, of torch.save, or of Caffe"}}},
               Pick(config, "", {"use_ema"}).flags),
          network, input,
          With(MachineFlags(config), {{"batch", &batch, "images per forward pass on each rank",
                                       Range(1, 1e6, "chosen for throughput")}})};
}

absl::StatusOr<Classifier> OpenClassifier(const ClassifierFlags& flags, int64_t images, Communicator& comm) {
  Classifier classifier;
  classifier.config = flags.config;
  ASSIGN_OR_RETURN(classifier.device, MakeDeviceFor(classifier.config, comm));
  if (flags.checkpoint.empty() == flags.config.init_from.empty())
    return InvalidArgument("needs either --checkpoint=DIR or --init_from=FILE");
  const std::string& path = flags.checkpoint.empty() ? flags.config.init_from : flags.checkpoint;
  // Rank 0 reads the weights, and broadcasts what describes them as JSON.
  absl::StatusOr<Weights> weights =
      comm.rank() == 0 ? ImportWeights(path, AverageOf(flags.config)) : Weights();
  RETURN_IF_ERROR(WithExitCode(Agree(comm, weights.status()), ExitCode::kCheckpoint));
  classifier.weights = weights->path;  // not in JSON: it may be other than UTF-8
  Broadcast(comm, 0, &classifier.weights);
  std::string text = json{weights->step, weights->config}.dump();
  Broadcast(comm, 0, &text);
  const json found = json::parse(text);

  classifier.step = found.at(0).get<int64_t>();
  const int cores = OwnCores(comm);
  RETURN_IF_ERROR(Agree(comm, FillIn(found.at(1), flags.batch, images, cores, classifier)));
  ASSIGN_OR_RETURN(const std::vector<std::string> warnings,
                   WithExitCode(LoadWeights(*weights, *classifier.params, comm), ExitCode::kCheckpoint));
  Warn(warnings);
  return classifier;
}

}  // namespace deeper
