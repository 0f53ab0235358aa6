// One function per family of networks: appends its nodes and heads to a model whose size and class count are
// set.
#pragma once

#include <string>
#include <utility>

#include "trainer/models/model.h"

namespace deeper {

enum class GoogLeNetKind { kArticle, kNaive, kBatchNorm, kTorchvision };

void BuildGoogLeNet(GoogLeNetKind kind, const ModelOptions& options, Model& model);
void BuildNin(const ModelOptions& options, Model& model);
void BuildNinCifar(const ModelOptions& options, Model& model);
void BuildAlexNet(const ModelOptions& options, Model& model);
void BuildVgg16(const ModelOptions& options, Model& model);

// Appends nodes to a model, each reading the one before it.
class NodeChain {
 public:
  NodeChain(Model& model, const ModelOptions& options, int input = kImages)
      : model_(model), dropout_(options.dropout), last_(input) {}

  void Add(std::string name, OpParams op) {
    model_.nodes.push_back({std::move(name), std::move(op), last_});
    last_ = static_cast<int>(model_.nodes.size()) - 1;
  }
  // Nothing where the options have dropout off.
  void AddDropout(std::string name, float p) {
    if (dropout_) Add(std::move(name), DropoutParams{p});
  }
  // The last node is the logits of a classifier.
  void AddHead(std::string name, float weight = 1.0f) {
    model_.heads.push_back({std::move(name), last_, weight});
  }

  int last() const { return last_; }

 private:
  Model& model_;
  bool dropout_;
  int last_;
};

}  // namespace deeper
