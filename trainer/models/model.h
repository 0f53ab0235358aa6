// The topology of networks, without memory or device: nodes with an op's parameters and an input node each.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ops/ops.h"

namespace deeper {

constexpr int kImages = -1;  // Node::input of the node that reads the images

struct Node {
  std::string name;  // prefix of its parameters: "inception3a" -> "inception3a.branch1.conv.weight"
  OpParams op;
  int input = kImages;  // index of an earlier node
};

// A classifier: weighted cross-entropy of node `logits`. The first is the main one; the others only train.
struct Head {
  std::string name;  // "main", "aux1", "aux2"
  int logits = 0;
  float weight = 1.0f;
};

struct Model {
  std::string name;
  int64_t channels = 3, image_size = 224, num_classes = 1000;
  std::vector<Node> nodes;  // in forward order
  std::vector<Head> heads;
};

// The first layers of the GoogLeNets. kDefault: conv1 is 7x7 with stride 2, then a pool of stride 2. kMedium:
// without that pool. kSmall: conv1 is 3x3 with stride 1, without that pool. The last two are for small
// images.
enum class Stem { kDefault, kMedium, kSmall };

struct ModelOptions {
  int64_t num_classes = 1000;
  int64_t channels = 3;
  int64_t image_size = 0;  // 0: the model's own, 224; 32 for nin-cifar and with stems for small images
  Stem stem = Stem::kDefault;
  bool aux = true;  // heads "aux1", "aux2" on the GoogLeNets; false for inference
  float aux_weight = 0.3f;
  bool dropout = true;
  // The pools of stride 2 of the GoogLeNets become a pool of stride 1 and a blur of stride 2: BlurPool, Zhang
  // 2019.
  bool blur_pool = false;
  float dropout_rate = -1;  // of the dropout layers outside auxiliary heads; -1: each layer's own
};

std::vector<std::string> ModelNames();

// If a max pool is the only reader of a layer's ReLU, the pool applies its mask (PoolParams::mask_dx).
// InvalidArgument: an unknown name (lists the known ones), an option the model does not have, or an image
// size that some layer does not fit (names the layer and the smallest size).
absl::StatusOr<Model> MakeModel(std::string_view name, const ModelOptions& options);

struct NodeShape {
  Shape x;
  OpShape op;
};
// In the order of model.nodes, for `batch` images. InvalidArgument names the node.
absl::StatusOr<std::vector<NodeShape>> InferShapes(const Model& model, int64_t batch);

}  // namespace deeper
