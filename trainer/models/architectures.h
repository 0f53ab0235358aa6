// The table of models and the tools that build them. A model is a file with its builder, and a row here.
#pragma once

#include <string>
#include <utility>

#include "trainer/models/model.h"

namespace deeper {

// Appends nodes and heads to a model whose other fields are set.
using ModelBuilder = void(const ModelOptions& options, Model& model);

ModelBuilder BuildGoogLeNet, BuildNin, BuildNinCifar, BuildAlexNet, BuildVgg16;

struct Architecture {
  const char* name;
  int64_t image_size;
  bool has_stems;      // other than the default
  bool has_blur_pool;  // ModelOptions::blur_pool
  ModelBuilder* build;
};
inline constexpr Architecture kArchitectures[] = {
    {"googlenet", 224, true, true, BuildGoogLeNet},
    {"googlenet-naive", 224, true, true, BuildGoogLeNet},
    {"googlenet-bn", 224, true, true, BuildGoogLeNet},
    {"googlenet-torchvision", 224, true, false, BuildGoogLeNet},
    {"googlenet-bvlc", 224, true, false, BuildGoogLeNet},
    {"nin", 224, false, false, BuildNin},
    {"nin-bn", 224, false, false, BuildNin},
    {"nin-cifar", 32, false, false, BuildNinCifar},
    {"nin-cifar-bn", 32, false, false, BuildNinCifar},
    {"alexnet", 224, false, false, BuildAlexNet},
    {"vgg16", 224, false, false, BuildVgg16},
};

// Appends nodes to a model, each reading the one before it.
class NodeChain {
 public:
  NodeChain(Model& model, const ModelOptions& options, int input = kImages)
      : model_(model), dropout_(options.dropout), dropout_rate_(options.dropout_rate), last_(input) {}

  void Add(std::string name, OpParams op) {
    model_.nodes.push_back({std::move(name), op, last_});
    last_ = static_cast<int>(model_.nodes.size()) - 1;
  }
  // `rate`: the layer's own. Adds nothing if dropout is off.
  void AddDropout(std::string name, float rate) {
    if (dropout_) Add(std::move(name), DropoutParams{dropout_rate_ >= 0 ? dropout_rate_ : rate});
  }
  // The last node is the logits of a classifier.
  void AddHead(std::string name, float weight = 1.0f) {
    model_.heads.push_back({std::move(name), last_, weight});
  }

  int last() const { return last_; }

 private:
  Model& model_;
  bool dropout_;
  float dropout_rate_;
  int last_;
};

}  // namespace deeper
