// A chain of neighbouring layers of a model by itself, on random data: what `deeper bench op` measures.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/buffer.h"
#include "kernels/base/device.h"
#include "kernels/base/op.h"
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
// One of these, or any node. InvalidArgument lists what there is.
absl::StatusOr<NodeRange> FindRange(const Model& model, const std::string& name);

struct OpChainOptions {
  int64_t rows = 1;
  DType precision = DType::kF32;
  bool fusion = true;
};

class OpChain {
 public:
  // Prepares the ops and allocates everything. ResourceExhausted if the device has too little memory.
  static absl::StatusOr<std::unique_ptr<OpChain>> Make(const Model& model, const NodeRange& range,
                                                       const OpChainOptions& options, Device& device);

  // x and dy uniform in [-1, 1), parameters as for training: the same on every device, fused or not.
  void Fill(uint64_t seed);
  void Forward();
  void Backward();  // all gradients; that of x too, but for the layer that reads the images

  // y, and then the gradients of all parameters, as in files; after a Forward and a Backward.
  std::vector<std::vector<float>> Results() const;

 private:
  struct Node {
    std::string name;
    std::unique_ptr<Op> op;
    Buffer y, saved, pooled_dx;
    std::vector<Buffer> dx;
  };

  explicit OpChain(Device& device) : device_(device) {}
  absl::Status Prepare(const Model& model, const NodeRange& range, const OpChainOptions& options);
  absl::Status Allocate(size_t bytes, Buffer& buffer);
  absl::Status AllocateNode(Node& node);
  void Bind();
  void Fill(const TensorDesc& desc, uint64_t seed, const Buffer& buffer);

  Device& device_;
  TensorDesc x_desc_;
  std::vector<Node> nodes_;
  std::vector<Param> op_params_;  // in the order of the ops, and of each op's own
  std::unique_ptr<ParamStore> params_;
  Buffer x_, dy_, workspace_, step_;
};

}  // namespace deeper
