// A runnable model: prepared ops in order, bound to one arena that is planned from tensor lifetimes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/gradient_reducer.h"
#include "data/load/loader.h"
#include "kernels/base/device.h"
#include "kernels/ops/ops.h"
#include "kernels/ops/softmax_loss.h"
#include "trainer/engine/memory_plan.h"
#include "trainer/engine/params.h"
#include "trainer/models/model.h"

namespace deeper {

struct NetworkOptions {
  int64_t rows = 1;               // of one forward pass
  DType precision = DType::kF32;  // of activations: kF32 or kBf16
  bool training = true;
  bool fusion = true;  // where the device has fused kernels
  float label_smoothing = 0;
  SumOverRanks sum_statistics = nullptr;  // OpOptions::sum_over_ranks
  // The input is a feature map of this layout, and its gradient is computed too. nullopt: images.
  std::optional<TensorDesc> input = std::nullopt;
};

// A model without heads is a part of another one (op_chain.h): the caller fills input() and
// output_gradient(). Its buffers share no memory, so that Forward and Backward can each be repeated.
class Network {
 public:
  // Prepares every op and plans the memory; allocates nothing large. InvalidArgument names the unfit node.
  // ResourceExhausted: the device has too little memory for the tuner, or is a GPU, and a tensor would have
  // 2^31 elements or more.
  static absl::StatusOr<std::unique_ptr<Network>> Prepare(const Model& model, const NetworkOptions& options,
                                                          Device& device);

  // A lower bound of arena_bytes() of any network of this model for training, without preparing it: the
  // tensors that ops with parameters read again in Backward.
  static size_t LeastArenaBytes(const Model& model, int64_t rows, DType precision);

  // For ParamStore::Create.
  std::vector<Param> Params() const;
  bool wants_narrow_params() const {
    return device_.wants_narrow_params() && options_.precision == DType::kBf16;
  }
  // Activations, their gradients, saved state and workspace.
  size_t arena_bytes() const { return plan_.bytes; }

  // Allocates the arena and binds every op to it and to `params`, which must outlive the network. Call it
  // once. Parameters are found by name, so that a network for inference, without aux heads, can share the
  // store of the training network. ResourceExhausted states the memory needed and available.
  absl::Status Bind(ParamStore& params);

  // Sets the loader's options that depend on the network and the device: size, channels, rows, batch format.
  void Configure(LoaderOptions& options) const;
  // Allocates the memory for the pixels of batches of this size, on CUDA. ResourceExhausted: there is too
  // little.
  absl::Status ReserveUploads(size_t bytes);
  // Begins to copy a batch's pixels to the device and, on CUDA, to make images of them, in parallel with the
  // current work; without it, Load does so. At most one batch may be staged and not loaded, and work before
  // the loaded batch must be complete.
  void Stage(const Batch& batch);
  // Makes a batch the input of Forward; it must stay valid until Device::Synchronize. The loss gradient is
  // scaled by 1 / batch.global_rows, so that summed over micro-batches and ranks it is that of the mean loss.
  void Load(const Batch& batch, uint64_t seed);
  // Which of kImageBuffers has the images of the last Load. Forward and Backward read them there, so each
  // needs recordings of its own.
  static constexpr int kImageBuffers = 2;
  int image_buffer() const { return image_buffer_; }
  // Load without the images.
  void LoadLabels(const Batch& batch, uint64_t seed);
  // Logits, then per head: loss, accuracy counts and, in training, the logits' gradient.
  void Forward();
  // Overwrites the gradients of all trained parameters. on_ready(i): gradient_pieces()[i] is final.
  void Backward(const std::function<void(size_t)>& on_ready);

  // In the order Backward finishes them; together they cover every trained parameter once.
  const std::vector<GradientPiece>& gradient_pieces() const { return gradient_pieces_; }
  const Model& model() const { return model_; }
  const NetworkOptions& options() const { return options_; }
  // [head]; of the last Forward, in device memory.
  const HeadResult* device_results() const { return ControlAt(control_).results; }
  // [head]; of the last Forward, after Device::Synchronize.
  std::span<const HeadResult> results() const;
  // Logits of the main head, [rows, classes], float32, copied to the host.
  void ReadLogits(float* logits) const;
  // In device memory, after Bind. The last node's output and its gradient: for models without heads.
  Tensor input() const { return {At(images_[image_buffer_]), images_desc_}; }
  Tensor output() const { return {At(buffers_[last()].y), ops_[last()]->needs().y}; }
  Tensor output_gradient() const { return {At(buffers_[last()].dy.front()), output().desc.Dense()}; }

 private:
  Network(const Model& model, const NetworkOptions& options, Device& device)
      : model_(model), options_(options), device_(device) {}
  absl::Status PrepareOps();
  absl::StatusOr<std::unique_ptr<Op>> PrepareOp(int node, const OpParams& params, OpOptions options);
  // The node whose op computes the input of a node, or kImages.
  int InputOf(int node) const;
  void PlanBuffers();
  void BindOps(ParamStore& params);
  // CUDA makes the images of a batch while the step of the batch before it reads its own.
  bool has_two_image_buffers() const { return device_.type() == DeviceType::kCuda && !model_.heads.empty(); }
  size_t last() const { return static_cast<size_t>(computed_by_.back()); }
  void* At(int buffer) const {
    return buffer < 0 ? nullptr : arena_.data() + plan_.offsets[static_cast<size_t>(buffer)];
  }

  Model model_;
  NetworkOptions options_;
  Device& device_;
  std::vector<std::unique_ptr<Op>> ops_;       // [node]; nullptr for a pool that another node's op computes
  std::vector<int> computed_by_;               // [node]; the node with the op that computes it
  std::vector<std::vector<ParamSpec>> specs_;  // [node]

  // Indexes into plan_.offsets.
  struct NodeBuffers {
    int y = -1, saved = -1, pooled_dx = -1;
    std::vector<int> dx;         // parts
    std::vector<int> dy;         // parts: dx of all consumers, and the loss' gradient of a head
    std::vector<int> pooled_dy;  // nodes with one more part
  };
  std::vector<NodeBuffers> buffers_;      // [node]
  std::vector<int> dlogits_;              // [head]
  int images_[kImageBuffers] = {-1, -1};  // the same one twice without has_two_image_buffers()
  int workspace_ = -1;
  TensorDesc images_desc_;
  MemoryPlan plan_;

  // Data that ops read and heads write besides tensors, at the same offsets on the device and on the host.
  struct Control {
    StepContext* step = nullptr;
    HeadResult* results = nullptr;      // [head]
    uint64_t* samples = nullptr;        // [rows]
    int32_t* labels = nullptr;          // [rows]
    int32_t* partner_labels = nullptr;  // [rows]
    float* partner_weights = nullptr;   // [rows]
  };
  Control ControlAt(const Buffer& memory) const;

  Buffer arena_, control_, staged_control_;
  Buffer incoming_;  // a batch from the host; the CPU uses the loader's memory instead
  int image_buffer_ = 0;
  bool staged_ = false;  // whether the other one is being filled
  struct ImageReader {
    Op* op;
    OpBinding binding;
  };
  std::vector<ImageReader> image_readers_;
  std::vector<GradientPiece> gradient_pieces_;
  std::vector<int> piece_of_node_;  // index into gradient_pieces_, -1 for a node without trained parameters
};

}  // namespace deeper
