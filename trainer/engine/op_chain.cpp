#include "trainer/engine/op_chain.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_join.h"
#include "kernels/base/bf16.h"
#include "kernels/base/rng.h"
#include "kernels/base/status.h"

namespace deeper {
namespace {

std::vector<NodeRange> AllNodes(const Model& model) {
  std::vector<NodeRange> ranges;
  for (int i = 0; i < static_cast<int>(model.nodes.size()); ++i) {
    ranges.push_back({model.nodes[static_cast<size_t>(i)].name, i, i});
  }
  return ranges;
}

// The place in memory of canonical element i, in the order N, C, H, W.
size_t OffsetOf(const TensorDesc& desc, int64_t i) {
  const Shape& s = desc.shape;
  const int64_t pixel = i % s.spatial(), channel = i / s.spatial();
  return static_cast<size_t>(desc.Offset(channel / s.c, channel % s.c, pixel / s.w, pixel % s.w));
}

// Whether a node's output has the layout of feature maps. For one pixel it differs from that of a matrix.
bool IsFeatureMap(const Model& model, int node) {
  const auto op = [&]() -> const OpParams& { return model.nodes[static_cast<size_t>(node)].op; };
  while (std::holds_alternative<DropoutParams>(op())) node = model.nodes[static_cast<size_t>(node)].input;
  return !std::holds_alternative<GlobalAvgPoolParams>(op()) && !std::holds_alternative<FlattenParams>(op()) &&
         !std::holds_alternative<LinearParams>(op());
}

}  // namespace

std::vector<NodeRange> BenchmarkedRanges(const Model& model) {
  std::vector<NodeRange> ranges;
  for (const NodeRange& node : AllNodes(model)) {
    if (!std::holds_alternative<InceptionParams>(model.nodes[static_cast<size_t>(node.first)].op)) continue;
    if (ranges.empty() && node.first > 0) ranges.push_back({"stem", 0, node.first - 1});
    ranges.push_back(node);
  }
  if (ranges.empty()) return AllNodes(model);
  NodeRange head = {"head", model.heads.front().logits, model.heads.front().logits};
  const auto input = [&] { return model.nodes[static_cast<size_t>(head.first)].input; };
  while (input() > ranges.back().last) head.first = input();
  ranges.push_back(head);
  return ranges;
}

absl::StatusOr<NodeRange> FindRange(const Model& model, const std::string& name) {
  std::vector<NodeRange> ranges = BenchmarkedRanges(model);
  for (NodeRange& node : AllNodes(model)) ranges.push_back(std::move(node));
  std::vector<std::string> names;
  for (const NodeRange& range : ranges) {
    if (range.name == name) return range;
    if (std::find(names.begin(), names.end(), range.name) == names.end()) names.push_back(range.name);
  }
  return InvalidArgument("--op=", name, ": ", model.name, " has no such layer; use all, or one of ",
                         absl::StrJoin(names, ", "));
}

absl::StatusOr<std::unique_ptr<OpChain>> OpChain::Make(const Model& model, const NodeRange& range,
                                                       NetworkOptions options, Device& device) {
  ASSIGN_OR_RETURN(const std::vector<NodeShape> shapes, InferShapes(model, options.rows));
  const Shape& x = shapes[static_cast<size_t>(range.first)].x;
  if (model.nodes[static_cast<size_t>(range.first)].input != kImages) {
    options.input = IsFeatureMap(model, model.nodes[static_cast<size_t>(range.first)].input)
                        ? device.FeatureMap(x, options.precision)
                        : TensorDesc{x, options.precision};
  }
  Model part = model;
  part.nodes.assign(model.nodes.begin() + range.first, model.nodes.begin() + range.last + 1);
  for (size_t i = 0; i < part.nodes.size(); ++i)
    part.nodes[i].input = static_cast<int>(i) - 1;  // kImages for the first
  part.heads.clear();
  std::unique_ptr<OpChain> chain(new OpChain(device));
  ASSIGN_OR_RETURN(chain->net_, Network::Prepare(part, options, device));
  ASSIGN_OR_RETURN(chain->params_, ParamStore::Create(chain->net_->Params(), device, /*training=*/true,
                                                      chain->net_->wants_narrow_params()));
  RETURN_IF_ERROR(chain->net_->Bind(*chain->params_));
  return chain;
}

void OpChain::Fill(uint64_t seed) {
  params_->Initialize(seed);
  Fill(net_->input(), seed + 1);
  Fill(net_->output_gradient(), seed + 2);
  // The samples are all number 0, and no head reads labels.
  const auto rows = static_cast<size_t>(net_->options().rows);
  const std::vector<uint64_t> samples(rows);
  const std::vector<int32_t> labels(rows);
  const std::vector<float> weights(rows);
  Batch batch;
  batch.samples = samples.data();
  batch.global_rows = 1;
  batch.labels = batch.partner_labels = labels.data();
  batch.partner_weights = weights.data();
  net_->LoadLabels(batch, seed);
  device_.Synchronize();
}

// Canonical element i has the same value in every layout, within the precision of the type.
void OpChain::Fill(const Tensor& tensor, uint64_t seed) {
  const TensorDesc& desc = tensor.desc;
  Rng rng(seed, RandomStream("bench"), 0, 0);
  std::vector<std::byte> staged(desc.bytes());
  for (int64_t i = 0; i < desc.shape.elements(); ++i) {
    const float value = 2 * rng.NextUnit() - 1;
    if (desc.dtype == DType::kBf16) {
      reinterpret_cast<bf16*>(staged.data())[OffsetOf(desc, i)] = ToBf16(value);
    } else {
      reinterpret_cast<float*>(staged.data())[OffsetOf(desc, i)] = value;
    }
  }
  device_.Copy(tensor.data, staged.data(), staged.size());
  device_.Synchronize();
}

std::vector<std::vector<float>> OpChain::Results() const {
  const Tensor y = net_->output();
  std::vector<std::byte> stored(y.desc.bytes());
  device_.Copy(stored.data(), y.data, stored.size());
  device_.Synchronize();
  std::vector<std::vector<float>> results(1);
  for (int64_t i = 0; i < y.desc.shape.elements(); ++i) {
    const size_t at = OffsetOf(y.desc, i);
    results[0].push_back(y.desc.dtype == DType::kBf16
                             ? ToFloat(reinterpret_cast<const bf16*>(stored.data())[at])
                             : reinterpret_cast<const float*>(stored.data())[at]);
  }
  for (const Param& param : params_->trained()) {
    auto& gradient = results.emplace_back(static_cast<size_t>(param.spec.elements()));
    params_->Read(param, params_->grads(), gradient.data());
  }
  return results;
}

double Difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    double difference = 0, norm = 0;
    for (size_t j = 0; j < a[i].size(); ++j) {
      difference += std::pow(double{a[i][j]} - b[i][j], 2);
      norm += std::pow(double{b[i][j]}, 2);
    }
    largest = std::max(largest, std::sqrt(difference / std::max(norm, 1e-30)));  // std::max ignores a NaN
    if (std::isnan(difference)) return difference;
  }
  return largest;
}

}  // namespace deeper
