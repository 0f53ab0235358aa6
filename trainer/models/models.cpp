#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "kernels/base/status.h"
#include "trainer/models/architectures.h"
#include "trainer/models/model.h"

namespace deeper {
namespace {

constexpr int64_t kSmallImageSize = 32;

// dy_is_masked of a layer whose whole output is a ReLU's, else nullptr. (A naive module also outputs a pool.)
bool* DyIsMasked(OpParams& op) {
  if (auto* conv = std::get_if<Conv2dParams>(&op)) return conv->relu ? &conv->dy_is_masked : nullptr;
  if (auto* module = std::get_if<InceptionParams>(&op))
    return module->c4 > 0 ? &module->dy_is_masked : nullptr;
  return nullptr;
}

// If a max pool is the only reader of a layer's ReLU, moves the ReLU's mask into the pool's backward pass.
void MaskReluInPools(Model& model) {
  std::vector<int> readers(model.nodes.size());
  for (const Node& node : model.nodes) {
    if (node.input != kImages) ++readers[static_cast<size_t>(node.input)];
  }
  for (Node& node : model.nodes) {
    auto* pool = std::get_if<PoolParams>(&node.op);
    if (pool == nullptr || pool->kind != PoolParams::Kind::kMax || node.input == kImages) continue;
    const auto input = static_cast<size_t>(node.input);
    bool* masked = DyIsMasked(model.nodes[input].op);
    if (masked != nullptr && readers[input] == 1) *masked = pool->mask_dx = true;
  }
}

absl::Status ValidateOptions(const Architecture& architecture, const ModelOptions& options) {
  if (options.num_classes < 1 || options.channels < 1 || options.image_size < 0) {
    return InvalidArgument(architecture.name, ": --num_classes ", options.num_classes, ", --image_size ",
                           options.image_size, " and ", options.channels,
                           " channels are not valid: all must be positive (image size 0 is the model's own)");
  }
  if (options.stem != Stem::kDefault && !architecture.has_stems) {
    return InvalidArgument(architecture.name,
                           " has one stem: omit --stem, or use a googlenet or nin-cifar for small images");
  }
  if (options.blur_pool && !architecture.has_blur_pool) {
    return InvalidArgument(architecture.name,
                           " has no --blur_pool: use googlenet, googlenet-naive or "
                           "googlenet-bn");
  }
  return absl::OkStatus();
}

// The smallest image size that fits every layer; at most `limit`, which fits.
int64_t SmallestImageSize(Model model, int64_t limit) {
  for (model.image_size = 1; model.image_size < limit; ++model.image_size) {
    if (InferShapes(model, 1).ok()) break;
  }
  return model.image_size;
}

}  // namespace

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const Architecture& architecture : kArchitectures) names.push_back(architecture.name);
  return names;
}

absl::StatusOr<Model> MakeModel(std::string_view name, const ModelOptions& options) {
  const auto* architecture = std::ranges::find(kArchitectures, name, &Architecture::name);
  if (architecture == std::end(kArchitectures)) {
    return InvalidArgument("there is no model \"", std::string(name), "\": use one of ",
                           absl::StrJoin(ModelNames(), ", "));
  }
  RETURN_IF_ERROR(ValidateOptions(*architecture, options));
  const int64_t own_size = options.stem != Stem::kDefault ? kSmallImageSize : architecture->image_size;
  Model model;
  model.name = name;
  model.channels = options.channels;
  model.image_size = options.image_size > 0 ? options.image_size : own_size;
  model.num_classes = options.num_classes;
  architecture->build(options, model);
  MaskReluInPools(model);
  if (absl::Status status = InferShapes(model, 1).status(); !status.ok()) {
    return InvalidArgument(status.message(), "; the smallest --image_size for ", model.name, " is ",
                           SmallestImageSize(model, own_size));
  }
  return model;
}

absl::StatusOr<std::vector<NodeShape>> InferShapes(const Model& model, int64_t batch) {
  const Shape images = {batch, model.channels, model.image_size, model.image_size};
  std::vector<NodeShape> shapes;
  for (const Node& node : model.nodes) {
    const Shape x = node.input == kImages ? images : shapes[static_cast<size_t>(node.input)].op.y;
    absl::StatusOr<OpShape> op = InferOp(node.op, x);
    if (!op.ok()) {
      return InvalidArgument(model.name, " on images of ", model.image_size, " px, layer ", node.name, ": ",
                             op.status().message());
    }
    shapes.push_back({x, *std::move(op)});
  }
  return shapes;
}

}  // namespace deeper
