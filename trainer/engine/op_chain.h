// Consecutive layers of a model as a separate network on random data, which `deeper bench op` measures.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/engine/network.h"
#include "trainer/engine/params.h"
#include "trainer/models/model.h"

namespace deeper {

// Nodes [first, last] of a model, each reading the one before.
struct NodeRange {
  std::string name;
  int first = 0, last = 0;
};

// "stem" (all before the first module), every module by its name, "head" (all after the last module on the
// way to the main classifier); for other networks, every node.
std::vector<NodeRange> BenchmarkedRanges(const Model& model);
// One of these ranges, or any node. InvalidArgument lists the known names.
absl::StatusOr<NodeRange> FindRange(const Model& model, const std::string& name);

class OpChain {
 public:
  // Prepares the nodes of `range` as a network and allocates everything. `options` are those of the whole
  // network; `input` is set here. ResourceExhausted if the device has too little memory.
  static absl::StatusOr<std::unique_ptr<OpChain>> Make(const Model& model, const NodeRange& range,
                                                       NetworkOptions options, Device& device);

  // x and dy uniform in [-1, 1), parameters as for training: the same on every device, fused or not.
  void Fill(uint64_t seed);
  void Forward() { net_->Forward(); }
  // All gradients; that of x too, except for the layer that reads the images.
  void Backward() {
    net_->Backward([](size_t) {});
  }

  // y, and then the gradients of all parameters, as in files; after a Forward and a Backward.
  std::vector<std::vector<float>> Results() const;

 private:
  explicit OpChain(Device& device) : device_(device) {}
  void Fill(const Tensor& tensor, uint64_t seed);

  Device& device_;
  std::unique_ptr<Network> net_;
  std::unique_ptr<ParamStore> params_;
};

// The largest |a - b| / |b| of a tensor, in the Euclidean norm, or NaN. a, b: Results of the same nodes.
double Difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b);

}  // namespace deeper
