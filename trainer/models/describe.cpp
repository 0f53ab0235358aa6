#include "trainer/models/describe.h"

#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/base/check.h"
#include "nlohmann/json.hpp"

namespace deeper {
namespace {

struct Cost {
  int64_t parameters = 0;  // trained ones only
  int64_t macs = 0;
  int64_t activation_bytes = 0;

  Cost& operator+=(const Cost& other) {
    parameters += other.parameters;
    macs += other.macs;
    activation_bytes += other.activation_bytes;
    return *this;
  }
};

struct Layer {
  const Node* node;
  Shape y;
  Cost cost;
};

struct Description {
  std::vector<Layer> layers;
  Cost training, inference;
};

Cost CostOf(const OpShape& op) {
  Cost cost = {0, op.macs, (op.y.elements() + op.inner_elements) * static_cast<int64_t>(sizeof(float))};
  for (const ParamSpec& param : op.params) {
    if (!IsStatistic(param.role)) cost.parameters += param.elements();
  }
  return cost;
}

// [node] whether the main head depends on it.
std::vector<bool> UsedByMainHead(const Model& model) {
  std::vector<bool> used(model.nodes.size());
  for (int node = model.heads[0].logits; node != kImages;
       node = model.nodes[static_cast<size_t>(node)].input) {
    used[static_cast<size_t>(node)] = true;
  }
  return used;
}

Description Describe(const Model& model, int64_t batch) {
  const absl::StatusOr<std::vector<NodeShape>> shapes = InferShapes(model, batch);
  DEEPER_CHECK(shapes.ok(), std::string(shapes.status().message()));
  const std::vector<bool> used = UsedByMainHead(model);
  Description description;
  for (size_t i = 0; i < model.nodes.size(); ++i) {
    const OpShape& op = (*shapes)[i].op;
    const Cost cost = CostOf(op);
    description.layers.push_back({&model.nodes[i], op.y, cost});
    description.training += cost;
    if (used[i]) description.inference += cost;
  }
  return description;
}

// What the 5x5 branch of inception3a costs with and without the 1x1 convolution before it, in MACs.
struct BranchCost {
  int64_t direct, reduce, convolve;
};

BranchCost CostOfBranch() {
  const Shape x = {1, 192, 28, 28};
  const Conv2dParams reduce = {.out_channels = 16, .kernel = 1};
  const Conv2dParams convolve = {.out_channels = 32, .kernel = 5, .pad = 2};
  const absl::StatusOr<OpShape> reduced = Infer(reduce, x);
  DEEPER_CHECK(reduced.ok(), std::string(reduced.status().message()));
  return {Infer(convolve, x)->macs, reduced->macs, Infer(convolve, reduced->y)->macs};
}

// The networks of the comparison, at inference on one image of ImageNet.
std::vector<std::pair<std::string, Cost>> ComparedModels() {
  std::vector<std::pair<std::string, Cost>> models;
  for (const char* name : {"alexnet", "vgg16", "googlenet-naive", "googlenet"}) {
    const absl::StatusOr<Model> model = MakeModel(name, {.aux = false});
    DEEPER_CHECK(model.ok(), std::string(model.status().message()));
    models.emplace_back(name, Describe(*model, 1).inference);
  }
  return models;
}

// 1234567 -> "1,234,567".
std::string Grouped(int64_t n) {
  return n < 1000 ? absl::StrCat(n) : absl::StrFormat("%s,%03d", Grouped(n / 1000), n % 1000);
}

std::string Row(std::string_view name, std::string_view kind, std::string_view output, const Cost& cost) {
  return absl::StrFormat("%-17s %-15s %-14s %11s %9.2f %9.3f\n", name, kind, output, Grouped(cost.parameters),
                         static_cast<double>(cost.macs) / 1e6,
                         static_cast<double>(cost.activation_bytes) / 1e6);
}

std::string ComparisonText() {
  const BranchCost branch = CostOfBranch();
  std::string text = absl::StrFormat(
      "\nA 5x5 convolution from 192 to 32 channels on a 28 x 28 map: %s MACs.\n"
      "The same after a 1x1 convolution to 16 channels:\n%s + %s = %s, %.1f times fewer.\n\n",
      Grouped(branch.direct), Grouped(branch.reduce), Grouped(branch.convolve),
      Grouped(branch.reduce + branch.convolve),
      static_cast<double>(branch.direct) / static_cast<double>(branch.reduce + branch.convolve));
  absl::StrAppendFormat(&text, "Inference on one image, 1000 classes:\n%-17s %11s %14s\n", "network",
                        "parameters", "MACs");
  for (const auto& [name, cost] : ComparedModels()) {
    absl::StrAppendFormat(&text, "%-17s %11s %14s\n", name, Grouped(cost.parameters), Grouped(cost.macs));
  }
  return text;
}

nlohmann::ordered_json ComparisonJson() {
  const BranchCost branch = CostOfBranch();
  nlohmann::ordered_json json;
  json["branch_5x5"] = {{"direct_macs", branch.direct},
                        {"reduce_1x1_macs", branch.reduce},
                        {"reduced_5x5_macs", branch.convolve},
                        {"reduced_total_macs", branch.reduce + branch.convolve}};
  for (const auto& [name, cost] : ComparedModels()) {
    json["networks"][name] = {{"parameters", cost.parameters}, {"macs", cost.macs}};
  }
  return json;
}

nlohmann::ordered_json ToJson(const Cost& cost) {
  return {{"parameters", cost.parameters}, {"macs", cost.macs}, {"activation_bytes", cost.activation_bytes}};
}

}  // namespace

std::string DescribeText(const Model& model, int64_t batch) {
  const Description description = Describe(model, batch);
  std::string text = absl::StrFormat(
      "%s: %d x %d px, %d channels, %d classes, batch %d\n"
      "Columns: channels x height x width of the output per image; trained parameters;\n"
      "million multiply-accumulates (MACs) and MB of activations in fp32, per batch.\n\n",
      model.name, model.image_size, model.image_size, model.channels, model.num_classes, batch);
  absl::StrAppendFormat(&text, "%-17s %-15s %-14s %11s %9s %9s\n", "layer", "kind", "output", "parameters",
                        "M MACs", "MB");
  for (const Layer& layer : description.layers) {
    text += Row(layer.node->name, KindOf(layer.node->op),
                absl::StrFormat("%d x %d x %d", layer.y.c, layer.y.h, layer.y.w), layer.cost);
  }
  text += Row("total", "", "", description.training);
  if (model.heads.size() > 1) text += Row("without aux heads", "", "", description.inference);
  return text + ComparisonText();
}

std::string DescribeJson(const Model& model, int64_t batch) {
  const Description description = Describe(model, batch);
  nlohmann::ordered_json json = {{"model", model.name},
                                 {"image_size", model.image_size},
                                 {"channels", model.channels},
                                 {"num_classes", model.num_classes},
                                 {"batch", batch}};
  for (const Layer& layer : description.layers) {
    nlohmann::ordered_json row = {{"name", layer.node->name},
                                  {"kind", KindOf(layer.node->op)},
                                  {"output", {layer.y.n, layer.y.c, layer.y.h, layer.y.w}}};
    row.update(ToJson(layer.cost));
    json["layers"].push_back(std::move(row));
  }
  json["total"] = ToJson(description.training);
  json["total_without_aux"] = ToJson(description.inference);
  json["comparison"] = ComparisonJson();
  return json.dump(2) + "\n";
}

}  // namespace deeper
