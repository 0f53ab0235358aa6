// Why a network learns or not: how large the gradients are in each of its stages, and how many of its
// channels get none. Reads the weights and gradients of one step, so it costs nothing in other steps.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops/ops.h"
#include "trainer/engine/params.h"
#include "trainer/models/model.h"
#include "trainer/monitor/metrics.h"

namespace deeper {

// Neighbouring layers: "conv1", "inception4" (4a to 4e), "aux1", "fc".
struct StageHealth {
  std::string stage;
  // Norms of the gradients and of the weights, without biases.
  double gradient = 0, weight = 0;
  // Channels with a ReLU, and those of them whose bias or shift has a gradient of exactly 0: the ReLU was 0
  // for all images of the step, or a pool behind it chose other positions.
  int64_t channels = 0, dead = 0;
  // If the outputs for the classes have a ReLU, as in NIN: the number of classes, and the dead ones.
  int64_t classes = 0;
  std::vector<int64_t> dead_classes = {};

  double relative_gradient() const { return weight > 0 ? gradient / weight : 0; }
  double dead_share() const {
    return channels > 0 ? static_cast<double>(dead) / static_cast<double>(channels) : 0;
  }
};

// In the order of the model. The gradients must be those of a complete, finite step, summed over all ranks.
std::vector<StageHealth> DiagnoseStages(const Model& model, const ParamStore& params);

// The classes that were dead in all of the latest diagnoses, and the images of these. A step with few images
// may have no image of a class, whose output is then 0 by chance.
struct DeadClasses {
  std::vector<int64_t> classes;
  int64_t images = 0;

  void Add(const std::vector<int64_t>& dead, int64_t dead_for_images);
};

// The event "diagnosis" with a line for the log: all relative gradients, the dead channels, and a warning
// about stages and classes that hardly learn, also as the field "what". A step with few images (the last one
// of an epoch) has dead channels by chance, so the warning does not count them. `dead_classes` is that of the
// previous diagnosis, and is updated.
Event DiagnosisEvent(int64_t step, int64_t images, const std::vector<StageHealth>& stages,
                     DeadClasses& dead_classes);

}  // namespace deeper
