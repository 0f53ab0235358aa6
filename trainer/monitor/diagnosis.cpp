#include "trainer/monitor/diagnosis.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace deeper {
namespace {

constexpr double kManyDead = 0.5;    // share of the channels of a stage
constexpr double kHardlyAny = 1e-5;  // of the largest relative gradient of a stage
constexpr int64_t kEnoughImages = 32, kEnoughPerClass = 6;
constexpr size_t kListedClasses = 10;

// "inception4a.branch1" is part of inception4.
std::string StageOf(const std::string& node) {
  std::string stage = node.substr(0, node.find('.'));
  if (stage.starts_with("inception")) stage.pop_back();
  return stage;
}

bool HasRelu(const OpParams& op) {
  const auto* const conv = std::get_if<Conv2dParams>(&op);
  const auto* const linear = std::get_if<LinearParams>(&op);
  return std::holds_alternative<InceptionParams>(op) || (conv != nullptr && conv->relu) ||
         (linear != nullptr && linear->relu);
}

// The node that computes the outputs for the classes, before a pool.
int ClassNode(const Model& model) {
  int node = model.heads.front().logits;
  while (std::holds_alternative<GlobalAvgPoolParams>(model.nodes[static_cast<size_t>(node)].op))
    node = model.nodes[static_cast<size_t>(node)].input;
  return node;
}

double Squares(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * double{value};
  return sum;
}

}  // namespace

std::vector<StageHealth> DiagnoseStages(const Model& model, const ParamStore& params) {
  std::vector<StageHealth> stages;
  std::vector<float> gradient, value;
  const int class_node = ClassNode(model);
  const auto read = [&](const Param& param, const float* arena, std::vector<float>& to) {
    to.resize(static_cast<size_t>(param.spec.elements()));
    params.Read(param, arena, to.data());
  };
  for (const Param& param : params.trained()) {
    const Node& node = model.nodes[static_cast<size_t>(param.node)];
    const std::string name = StageOf(node.name);
    auto stage = std::ranges::find(stages, name, &StageHealth::stage);
    if (stage == stages.end()) stage = stages.insert(stages.end(), {.stage = name});
    read(param, params.grads(), gradient);
    if (param.spec.role == ParamRole::kWeight) {
      read(param, params.values(), value);
      stage->gradient += Squares(gradient);
      stage->weight += Squares(value);
    } else if (HasRelu(node.op) && param.spec.role != ParamRole::kScale) {
      stage->channels += std::ssize(gradient);
      stage->dead += std::ranges::count(gradient, 0.0f);
      if (param.node != class_node) continue;
      stage->classes = std::ssize(gradient);
      for (int64_t i = 0; i < stage->classes; ++i) {
        if (gradient[static_cast<size_t>(i)] == 0) stage->dead_classes.push_back(i);
      }
    }
  }
  for (StageHealth& stage : stages) {
    stage.gradient = std::sqrt(stage.gradient);
    stage.weight = std::sqrt(stage.weight);
  }
  return stages;
}

void DeadClasses::Add(const std::vector<int64_t>& dead, int64_t dead_for_images) {
  if (classes.empty()) {
    classes = dead;
  } else {
    std::erase_if(classes, [&](int64_t index) { return std::ranges::find(dead, index) == dead.end(); });
  }
  images = classes.empty() ? 0 : images + dead_for_images;
}

Event DiagnosisEvent(int64_t step, int64_t images, const std::vector<StageHealth>& stages,
                     DeadClasses& dead_classes) {
  Event event{"diagnosis", {{"step", step}}};
  std::vector<std::string> gradients, dead, warnings;
  double largest = 0;
  for (const StageHealth& stage : stages) largest = std::max(largest, stage.relative_gradient());
  for (const StageHealth& stage : stages) {
    event.fields["gradient_" + stage.stage] = stage.relative_gradient();
    gradients.push_back(absl::StrFormat("%s %.2g", stage.stage, stage.relative_gradient()));
    if (stage.relative_gradient() < kHardlyAny * largest)
      warnings.push_back(absl::StrCat("hardly any gradient reaches ", stage.stage));
    if (stage.channels == 0) continue;
    event.fields["dead_" + stage.stage] = stage.dead_share();
    if (stage.dead_share() >= 0.005) {
      dead.push_back(absl::StrFormat("%s %.0f %%", stage.stage, 100 * stage.dead_share()));
    } else if (stage.dead > 0) {
      dead.push_back(stage.stage + " under 1 %");
    }
    if (stage.dead_share() > kManyDead && images >= kEnoughImages)
      warnings.push_back(absl::StrCat("most ReLUs of ", stage.stage, " are dead"));
    if (stage.classes == 0) continue;
    dead_classes.Add(stage.dead_classes, images);
    if (dead_classes.classes.empty() || dead_classes.images < kEnoughPerClass * stage.classes) continue;
    std::vector<int64_t> listed = dead_classes.classes;
    listed.resize(std::min(listed.size(), kListedClasses));
    warnings.push_back(absl::StrCat("the outputs for ", dead_classes.classes.size(), " of ", stage.classes,
                                    " classes are 0 for all images, so they do not learn (class ",
                                    absl::StrJoin(listed, ", "),
                                    listed.size() < dead_classes.classes.size() ? ", ...)" : ")"));
  }
  event.text =
      absl::StrFormat("diagnosis of step %d: gradients relative to weights: %s; dead ReLUs: %s", step,
                      absl::StrJoin(gradients, ", "), dead.empty() ? "none" : absl::StrJoin(dead, ", "));
  const std::string what = absl::StrJoin(warnings, "; ");
  event.fields["what"] = what;
  if (!what.empty()) {
    absl::StrAppend(&event.text, "\nwarning: ", what,
                    ". Try a lower --lr, a longer --warmup_epochs or a network with batch normalisation");
  }
  return event;
}

}  // namespace deeper
