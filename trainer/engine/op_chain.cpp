#include "trainer/engine/op_chain.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/base/bf16.h"
#include "kernels/base/rng.h"
#include "kernels/base/status.h"
#include "kernels/ops/ops.h"

namespace deeper {
namespace {

bool IsModule(const Node& node) {
  return std::holds_alternative<InceptionParams>(node.op);
}

// The last nodes on the way to the main head, from `first` on.
NodeRange RangeToMainHead(const Model& model, const std::string& name, int after) {
  NodeRange range = {name, model.heads.front().logits, model.heads.front().logits};
  while (model.nodes[static_cast<size_t>(range.first)].input > after) {
    range.first = model.nodes[static_cast<size_t>(range.first)].input;
  }
  return range;
}

std::vector<NodeRange> AllNodes(const Model& model) {
  std::vector<NodeRange> ranges;
  for (int i = 0; i < static_cast<int>(model.nodes.size()); ++i) {
    ranges.push_back({model.nodes[static_cast<size_t>(i)].name, i, i});
  }
  return ranges;
}

}  // namespace

std::vector<NodeRange> BenchmarkedRanges(const Model& model) {
  std::vector<NodeRange> ranges;
  for (const NodeRange& node : AllNodes(model)) {
    if (!IsModule(model.nodes[static_cast<size_t>(node.first)])) continue;
    if (ranges.empty() && node.first > 0) ranges.push_back({"stem", 0, node.first - 1});
    ranges.push_back(node);
  }
  if (ranges.empty()) return AllNodes(model);
  ranges.push_back(RangeToMainHead(model, "head", ranges.back().last));
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
  return absl::InvalidArgumentError(absl::StrCat("--op=", name, ": ", model.name,
                                                 " has no such layer: take all, or one of ",
                                                 absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::unique_ptr<OpChain>> OpChain::Make(const Model& model, const NodeRange& range,
                                                       const OpChainOptions& options, Device& device) {
  std::unique_ptr<OpChain> chain(new OpChain(device));
  RETURN_IF_ERROR(chain->Prepare(model, range, options));
  return chain;
}

absl::Status OpChain::Prepare(const Model& model, const NodeRange& range, const OpChainOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<NodeShape> shapes, InferShapes(model, options.rows));
  const Shape& x = shapes[static_cast<size_t>(range.first)].x;
  const bool reads_images = model.nodes[static_cast<size_t>(range.first)].input == kImages;
  x_desc_ = reads_images       ? device_.Images(x, options.precision)
            : x.spatial() == 1 ? TensorDesc{x, options.precision}
                               : device_.FeatureMap(x, options.precision);
  size_t workspace_bytes = 0;
  for (int i = range.first; i <= range.last; ++i) {
    const auto at = static_cast<size_t>(i);
    const deeper::Node& node = model.nodes[at];
    const OpNeeds* const input = nodes_.empty() ? nullptr : &nodes_.back().op->needs();
    const bool read_by_taker = i == range.last || TakesSlices(model.nodes[at + 1].op);
    ASSIGN_OR_RETURN(std::unique_ptr<Op> op,
                     MakeOp(node.op, input == nullptr ? x_desc_ : input->y,
                            {.name = node.name,
                             .training = true,
                             .want_dx = i > range.first || !reads_images,
                             .x_takes_pooled_gradients = input != nullptr && input->takes_pooled_gradients,
                             .fuse = options.fusion && read_by_taker},
                            device_));
    AppendParams(node.name, i - range.first, shapes[at].op.params, op->needs(), op_params_);
    nodes_.push_back(
        {.name = node.name, .op = std::move(op), .y = {}, .saved = {}, .pooled_dx = {}, .dx = {}});
    workspace_bytes = std::max(workspace_bytes, nodes_.back().op->needs().workspace_bytes);
    RETURN_IF_ERROR(AllocateNode(nodes_.back()));
  }
  const bool narrow = device_.wants_narrow_params() && options.precision == DType::kBf16;
  auto store = ParamStore::Create(op_params_, device_, /*training=*/true, narrow);
  if (!store.ok()) return store.status();
  params_ = *std::move(store);
  const TensorDesc y = nodes_.back().op->needs().y.Dense();
  absl::Status status = Allocate(x_desc_.bytes(), x_);
  status.Update(Allocate(y.bytes(), dy_));
  status.Update(Allocate(workspace_bytes, workspace_));
  status.Update(Allocate(sizeof(StepContext) + static_cast<size_t>(options.rows) * sizeof(uint64_t), step_));
  if (status.ok()) Bind();
  return status;
}

void OpChain::Fill(uint64_t seed) {
  params_->Initialize(seed);
  Fill(x_desc_, seed + 1, x_);
  Fill(nodes_.back().op->needs().y.Dense(), seed + 2, dy_);
  // The samples are all number 0.
  const StepContext step = {.seed = seed,
                            .samples = reinterpret_cast<uint64_t*>(step_.as<StepContext>() + 1)};
  device_.Copy(step_.data(), &step, sizeof step);
  device_.Synchronize();
}

absl::Status OpChain::Allocate(size_t bytes, Buffer& buffer) {
  buffer = device_.Allocate(bytes);
  if (bytes == 0 || buffer.data() != nullptr) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("no memory for ", bytes, " more bytes, ",
                                                   device_.AvailableBytes(),
                                                   " are free: use a smaller --batch"));
}

absl::Status OpChain::AllocateNode(Node& node) {
  const OpNeeds& needs = node.op->needs();
  absl::Status status = Allocate(needs.y.bytes(), node.y);
  status.Update(Allocate(needs.saved_bytes, node.saved));
  for (const TensorDesc& part : needs.dx_parts) status.Update(Allocate(part.bytes(), node.dx.emplace_back()));
  if (needs.pooled_dx.has_value()) status.Update(Allocate(needs.pooled_dx->desc.bytes(), node.pooled_dx));
  return status;
}

void OpChain::Bind() {
  std::vector<OpBinding> bindings(nodes_.size());
  std::unordered_map<std::string, const Param*> by_name;
  for (const auto* table : {&params_->trained(), &params_->statistics()}) {
    for (const Param& param : *table) by_name[param.name] = &param;
  }
  auto* const narrow = static_cast<uint16_t*>(params_->narrow_values());
  for (const Param& own : op_params_) {
    const int64_t offset = by_name.at(own.name)->offset;
    OpBinding& b = bindings[static_cast<size_t>(own.node)];
    const bool trained = !IsStatistic(own.spec.role);
    b.params.push_back((trained ? params_->values() : params_->statistic_values()) + offset);
    b.grads.push_back(trained ? params_->grads() + offset : nullptr);
    b.narrow_params.push_back(trained && narrow != nullptr ? narrow + offset : nullptr);
  }
  for (size_t i = 0; i < nodes_.size(); ++i) {
    OpBinding& b = bindings[i];
    const Node& node = nodes_[i];
    b.x = i == 0 ? x_.data() : nodes_[i - 1].y.data();
    b.y = node.y.data();
    if (i + 1 == nodes_.size()) {
      b.dy = {dy_.data()};
    } else {
      const Node& reader = nodes_[i + 1];
      for (const Buffer& part : reader.dx) b.dy.push_back(part.data());
      if (const auto& pooled = reader.op->needs().pooled_dx; pooled.has_value())
        b.pooled_dy.push_back({*pooled, reader.pooled_dx.data(), reader.saved.as<uint8_t>()});
    }
    for (const Buffer& part : node.dx) b.dx.push_back(part.data());
    b.pooled_dx = node.pooled_dx.data();
    b.saved = node.saved.data();
    b.workspace = workspace_.data();
    b.step = step_.as<StepContext>();
    node.op->Bind(b);
  }
}

// Canonical element i has the same value in every layout, as far as the type holds it.
void OpChain::Fill(const TensorDesc& desc, uint64_t seed, const Buffer& buffer) {
  Rng rng(seed, RandomStream("bench"), 0, 0);
  std::vector<std::byte> staged(desc.bytes());
  const Shape& s = desc.shape;
  for (int64_t n = 0; n < s.n; ++n) {
    for (int64_t c = 0; c < s.c; ++c) {
      for (int64_t pixel = 0; pixel < s.spatial(); ++pixel) {
        const float value = 2 * rng.NextUnit() - 1;
        const auto at = static_cast<size_t>(desc.Offset(n, c, pixel / s.w, pixel % s.w));
        if (desc.dtype == DType::kBf16) {
          reinterpret_cast<bf16*>(staged.data())[at] = ToBf16(value);
        } else {
          reinterpret_cast<float*>(staged.data())[at] = value;
        }
      }
    }
  }
  device_.Copy(buffer.data(), staged.data(), staged.size());
  device_.Synchronize();
}

void OpChain::Forward() {
  for (const Node& node : nodes_) {
    device_.Annotate(node.name);
    node.op->Forward();
  }
}

void OpChain::Backward() {
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    device_.Annotate(node->name);
    node->op->Backward();
  }
}

std::vector<std::vector<float>> OpChain::Results() const {
  const TensorDesc& desc = nodes_.back().op->needs().y;
  std::vector<std::byte> stored(desc.bytes());
  device_.Copy(stored.data(), nodes_.back().y.data(), stored.size());
  device_.Synchronize();
  std::vector<std::vector<float>> results(1);
  const Shape& s = desc.shape;
  for (int64_t i = 0; i < s.elements(); ++i) {
    const int64_t pixel = i % s.spatial(), image = i / s.spatial();
    const auto at = static_cast<size_t>(desc.Offset(image / s.c, image % s.c, pixel / s.w, pixel % s.w));
    results[0].push_back(desc.dtype == DType::kBf16
                             ? ToFloat(reinterpret_cast<const bf16*>(stored.data())[at])
                             : reinterpret_cast<const float*>(stored.data())[at]);
  }
  for (const Param& param : params_->trained()) {
    auto& gradient = results.emplace_back(static_cast<size_t>(param.spec.elements()));
    params_->Read(param, params_->grads(), gradient.data());
  }
  return results;
}

}  // namespace deeper
